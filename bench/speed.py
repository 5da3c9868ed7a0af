"""Generation, judging and training against what people would use instead: one model, the same prompts and limits.

    make bench            (or: python -m bench.speed, with those peers of bench/requirements.txt that are installed)

Rounds: in each, every engine works in turn on the first prompts of the same block, in the next one on another block.
Slow engines get fewer prompts, and ours is timed on few as well, since its rate grows with their number. Writes
bench/results.json and bench/speed.png. About 15 minutes on 2 cores.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean
from typing import Any

import altair
import torch

from bench import peers, training, work
from stages.lib.base.cli import run
from stages.lib.base.files import cache_folder, write_text
from stages.lib.base.model_files import FILES, SMALLEST
from stages.lib.fetch.carriers import model_file
from stages.lib.generate import engine
from stages.lib.measure.stats import paired_change
from stages.lib.prompts.gsm8k import is_correct

FOLDER = Path(__file__).parent
ROUNDS = 2
BLOCK = 256  # prompts of a round, or what there is; as many slots for our engine
OURS, FEW = "aftertune", "aftertune, few prompts"
LOOP, PADDED, HARNESS = "paper's loop", "generate, batch 32", "lm-eval hf, batch 32"
LLAMA = "llama.cpp Q4_1, 16 at a time"
PROMPTS = {  # prompts of a round for each engine
    "math, 5 shots": {LOOP: 8, PADDED: 32, HARNESS: 32, LLAMA: 32, FEW: 32, OURS: BLOCK},
    "safety, 0 shots": {LOOP: 8, PADDED: 64, HARNESS: 64, LLAMA: 64, FEW: 64, OURS: BLOCK},
    "judging": {LOOP: 8, PADDED: 32, HARNESS: 32, LLAMA: 32, FEW: 32, OURS: 128},
}


def main() -> None:
    model, tokenizer = work.load()
    own = work.load_own()
    written: list[list[engine.Generation]] = []
    engines = engines_for(model, tokenizer, greedy(own, tokenizer, written))
    job = work.math_work(tokenizer)
    math, texts = rounds(job, engines)
    math["floor"] = floor(tokenizer, model.config, job, [row.tokens for row in written[-1]], BLOCK)
    agreement = bf16_agreement(job, texts)
    job = work.safety_work(tokenizer)
    safety, texts = rounds(job, engines)
    safety["floor"] = floor(tokenizer, model.config, job, [row.tokens for row in written[-1]], BLOCK)
    job = work.judge_work(tokenizer, [text for block in texts[OURS] for text in block])
    judging, _ = rounds(job, engines_for(model, tokenizer, verdicts(own, tokenizer)))
    count = min(PROMPTS["judging"][OURS], len(job.prompts) // ROUNDS)
    judging["floor"] = floor(tokenizer, model.config, job, [1] * count, 64)
    results = {
        "machine": machine(),
        "data": work.sources()[0],
        "model": f"{work.MODEL}, bf16",
        "work": {"math, 5 shots": math, "safety, 0 shots": safety, "judging": judging},
        "bf16": agreement,
        "training": training.compare(work.MODEL, ROUNDS),
    }
    write_text(FOLDER / "results.json", json.dumps(results, indent=2) + "\n")
    chart(results).save(str(FOLDER / "speed.png"), scale_factor=2)
    print(table(results), training_table(results), sep="\n\n")


def engines_for(model: Any, tokenizer: Any, ours: peers.Run) -> dict[str, Callable[[], peers.Run]]:
    """Every engine that is installed; made when its turn comes."""
    found = {
        LOOP: lambda: peers.padded(model, tokenizer, 1),
        PADDED: lambda: peers.padded(model, tokenizer, 32),
        FEW: lambda: ours,
        OURS: lambda: ours,
    }
    if peers.installed("lm_eval"):
        found[HARNESS] = lambda: peers.lm_eval(model, tokenizer, 32)
    if peers.installed("llama_cpp"):
        gguf = model_file(SMALLEST, FILES[SMALLEST], cache_folder() / "bench")
        found[LLAMA] = lambda: peers.llama_cpp(gguf, tokenizer, 16, torch.get_num_threads())
    return found


def greedy(model: Any, tokenizer: Any, written: list[list[engine.Generation]]) -> peers.Run:
    """This project's generation; what it wrote is appended to `written`."""

    def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        written.append(engine.greedy(engine.Engine(model, tokenizer, BLOCK), prompts, limit, "bench"))
        return time.perf_counter() - start, [row.text for row in written[-1]]

    return run


def verdicts(model: Any, tokenizer: Any) -> peers.Run:
    """This project's judging: the next token's probabilities, one pass."""
    words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("safe", "unsafe")]

    def run(prompts: list[str], _limit: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        scored = engine.next_token(engine.Engine(model, tokenizer, 64), prompts, words, "bench")
        return time.perf_counter() - start, [tokenizer.decode([best]) for best, _ in scored]

    return run


def rounds(job: work.Work, engines: dict[str, Callable[[], peers.Run]]) -> tuple[dict, dict[str, list[list[str]]]]:
    """Seconds per prompt of each engine in each round, and what each wrote."""
    seconds: dict[str, list[float]] = {name: [] for name in PROMPTS[job.name] if name in engines}
    texts: dict[str, list[list[str]]] = {name: [] for name in seconds}
    for block in range(ROUNDS):
        for name in seconds:
            prompts = _block(job.prompts, block)[: PROMPTS[job.name][name]]
            taken, out = engines[name]()(prompts, job.limit)
            seconds[name].append(round(taken / len(prompts), 4))
            texts[name].append(out)
            print(f"{job.name}, round {block + 1}: {name}: {taken / len(prompts):.3f} s per prompt", file=sys.stderr)
    times = {
        name: [round(other / own, 2) for other, own in zip(s, seconds[OURS], strict=True)]
        for name, s in seconds.items()
    }
    count = {name: len(out[-1]) for name, out in texts.items()}
    return {"limit": job.limit, "prompts": count, "seconds_per_prompt": seconds, "times_ours": times}, texts


def _block(rows: list[str], block: int) -> list[str]:
    """The rows of a round: BLOCK of them, or an equal share where there are fewer."""
    size = min(BLOCK, len(rows) // ROUNDS)
    return rows[block * size : (block + 1) * size]


def floor(tokenizer: Any, config: Any, job: work.Work, new: list[int], rows: int) -> dict:
    """The least that our last round could have taken."""
    prompts = _block(job.prompts, ROUNDS - 1)[: len(new)]
    return work.floor(config, tokenizer(prompts, add_special_tokens=False)["input_ids"], new, rows)


def bf16_agreement(job: work.Work, texts: dict[str, list[list[str]]]) -> dict:
    """Our answers against `generate`'s on the same prompts: how many are identical, and the difference in accuracy."""
    count = PROMPTS[job.name][PADDED]
    golds = [gold for block in range(ROUNDS) for gold in _block(job.gold, block)[:count]]
    theirs = [text for block in texts[PADDED] for text in block]
    ours = [text for block in texts[OURS] for text in block[:count]]
    right = [[is_correct(text, gold, "flexible") for text, gold in zip(t, golds, strict=True)] for t in (theirs, ours)]
    change = paired_change(*right)
    return {
        "n": len(golds),
        "identical": round(mean(a == b for a, b in zip(theirs, ours, strict=True)), 3),
        "accuracy": {"generate": round(mean(right[0]), 3), "aftertune": round(mean(right[1]), 3)},
        "change": [round(value, 3) for value in (change.value, change.low, change.high)],
    }


def machine() -> dict[str, str]:
    """What the figures were measured on and with."""
    found = {"processor": processor(), "cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}
    for name in ("torch", "transformers", "peft", "bitsandbytes", "lm_eval", "llama-cpp-python"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def processor() -> str:
    """The processor's name and what it multiplies bf16 matrices with."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    pairs = (line.partition(":") for line in info.read_text().splitlines())
    lines = {name.strip(): value.strip() for name, _, value in pairs}
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in lines.get("flags", "").split()]
    return f"{lines.get('model name', platform.machine())} ({', '.join(flags) or 'no bf16 instructions'})"


def table(results: dict) -> str:
    """The README's table, in Markdown."""
    lines = ["| work | engine | prompts a round | seconds per prompt | times ours |", "|---|---|---|---|---|"]
    for name, job in results["work"].items():
        for peer, seconds in job["seconds_per_prompt"].items():
            times = job["times_ours"][peer]
            shown = "1" if peer == OURS else f"{mean(times):.1f} ({min(times):.1f} to {max(times):.1f})"
            spread = f"{mean(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
            lines.append(f"| {name} | {peer} | {job['prompts'][peer]} | {spread} | {shown} |")
        least = job["floor"]["seconds_per_prompt"]
        share = mean(job["seconds_per_prompt"][OURS]) / least
        lines.append(
            f"| {name} | floor (matrix products alone) | | {least:.3f} | ours takes {share:.1f} times the floor |"
        )
    return "\n".join(lines)


def training_table(results: dict) -> str:
    """Packed against unpacked training, in Markdown."""
    lines = ["| shots | way | seconds per row | peak memory, MiB | times faster |", "|---|---|---|---|---|"]
    for shots, found in results["training"].items():
        for way in ("unpacked", "packed"):
            seconds, peaks = ([row[key] for row in found[way]] for key in ("seconds_per_row", "peak_memory_mib"))
            times = ", ".join(f"{value:.2f}" for value in found["times_faster"]) if way == "packed" else ""
            took = f"{min(seconds):.2f} to {max(seconds):.2f}"
            held = f"{min(peaks)} to {max(peaks)}"
            lines.append(f"| {shots} | {way} | {took} | {held} | {times} |")
    return "\n".join(lines)


def chart(results: dict) -> altair.Chart:
    """Seconds per prompt, a panel for each kind of work; logarithmic."""
    rows = [
        {"work": name, "engine": peer, "seconds": mean(seconds)}
        for name, job in results["work"].items()
        for peer, seconds in {**job["seconds_per_prompt"], "floor": [job["floor"]["seconds_per_prompt"]]}.items()
    ]
    bars = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("seconds:Q", scale=altair.Scale(type="log"), title="seconds per prompt (logarithmic)"),
        y=altair.Y("engine:N", sort=[LOOP, PADDED, HARNESS, LLAMA, FEW, OURS, "floor"], title=None),
    )
    marks = bars.mark_point(filled=True, size=90)
    labels = bars.mark_text(align="left", dx=8).encode(text=altair.Text("seconds:Q", format=".3f"))
    return (marks + labels).properties(width=420, height=170).facet(row=altair.Row("work:N", title=None))


if __name__ == "__main__":
    run(main)
