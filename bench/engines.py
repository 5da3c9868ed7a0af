"""This project's engine in pairs with the fastest of its peers: vLLM, lm-evaluation-harness over vLLM and over
transformers, transformers' continuous batching.

    make bench      (or: python -m bench.engines [--prompts 64 256] [--peers vllm ...], see --help)

For each model, without an adapter and with one, and for each peer and work: both are warmed up on other prompts, then
ours, the peer, ours, the peer... on the same ones, so that a machine's mood touches both. Loading is not timed. Slow
peers get fewer prompts, and then so does ours. Writes bench/engines.json, where a processor's last run is kept by its
name, and prints the tables of bench/README.md. What cannot be run is said and left out.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from os.path import commonprefix
from pathlib import Path
from statistics import mean
from typing import Any

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_text
from stages.lib.base.model_files import SMALLEST

RESULTS = Path(__file__).with_name("engines.json")
MODELS = (SMALLEST, "embedded/qwen2.5-coder-0.5b-instruct")
VLLM, OVER_VLLM, OVER_HF, CONTINUOUS = "vllm", "lm-eval-vllm", "lm-eval-hf", "generate_batch"
MOST = {VLLM: 256, OVER_VLLM: 256, OVER_HF: 32, CONTINUOUS: 8}  # prompts a peer is given at most
WORKS = ("math, 5 shots", "safety, 0 shots", "judging")
WARM = 4  # other prompts, before the first round
ROUNDS, PROMPTS = 3, 64


@dataclass(frozen=True)
class Pair:
    """Ours and a peer on one work: seconds per prompt of each round, and how much of the answers is the same up to
    where they part, which in 16 bits they do."""

    model: str
    adapter: bool
    work: str
    peer: str
    prompts: int
    ours: list[float]
    theirs: list[float]
    alike: float


@dataclass(frozen=True)
class Floor:
    """Operations that a work must take (bench/work.py), per prompt: for the prompts and for the new tokens; and the
    rates of torch.mm at a model's shapes that were measured beside it: on 2,048 rows, and on as many as are written at
    once, with the output layer."""

    model: str
    adapter: bool
    work: str
    prompts: int
    gflop: list[float]
    gflop_per_second: list[float]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--prompts", type=int, nargs="+", default=[PROMPTS], help="of each work, at most")
    arguments.add_argument("--rounds", type=int, default=ROUNDS)
    arguments.add_argument("--models", nargs="+", default=MODELS)
    arguments.add_argument("--peers", nargs="+", default=list(MOST), choices=list(MOST))
    arguments.add_argument("--out", type=Path, default=RESULTS, help="another file to write to")
    given = arguments.parse_args()
    if min(*given.prompts, given.rounds) < 1:
        raise BadInput(f"--prompts {given.prompts} --rounds {given.rounds}: expected at least 1 of each")
    from bench import speed

    found: dict[str, Any] = {"machine": speed.machine(), "load": os.getloadavg()[0], "vllm": {}, "left_out": {}}
    found |= {"data": speed.work.sources()[0], "pairs": [], "floors": []}
    for model in given.models:
        for adapter in (False, True):
            measure(model, adapter, given.prompts, given.rounds, given.peers, found)
            kept = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
            write_text(given.out, json.dumps(kept | {found["machine"]["processor"]: found}, indent=1) + "\n")
    print(heading(found), table(found), floors(found), sep="\n\n")


def measure(
    name: str, with_adapter: bool, counts: Sequence[int], rounds: int, peers: Sequence[str], found: dict
) -> None:
    """All pairs and floors of a model, with an adapter or without; what cannot be run is noted as left out."""
    from bench import speed, work
    from stages.lib.model.sources import find, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) if with_adapter else None
        if adapter:
            work.write_adapter(name, adapter)
        tokenizer = load_tokenizer(find(name, None))
        own = work.load_own(name, adapter)
        written: list[list] = []
        ours = {each: speed.greedy(own, tokenizer, written) for each in WORKS[:2]}
        ours[WORKS[2]] = speed.verdicts(own, tokenizer)
        jobs = [work.math_work(tokenizer), work.safety_work(tokenizer)]
        responses = ours[WORKS[1]](jobs[1].prompts[: max(counts) + WARM], jobs[1].limit)[1]
        jobs.append(work.judge_work(tokenizer, responses, 1))
        for job, count in product(jobs, counts):
            ids = tokenizer(job.prompts[:count], add_special_tokens=False)["input_ids"]
            ours[job.name](job.prompts[:count], job.limit)
            new = [row.tokens for row in written[-1]] if job.limit > 1 else [1] * len(ids)
            gflop = [round(each / len(ids) / 1e9, 3) for each in work.flops(own.config, ids, new)]
            rates = work.matrix_rate(own.config, 2048), work.matrix_rate(own.config, min(len(ids), 64), output=True)
            least = Floor(name, with_adapter, job.name, len(ids), gflop, [round(rate, 1) for rate in rates])
            found["floors"].append(asdict(least))
        for peer in peers:
            try:
                with opened(peer, name, adapter, tokenizer, own, found) as theirs:
                    for job, count in product(jobs, sorted({min(count, MOST[peer]) for count in counts})):
                        pair = paired(
                            ours[job.name], theirs, job.prompts[:count], job.prompts[-WARM:], job.limit, rounds
                        )
                        found["pairs"].append(asdict(Pair(name, with_adapter, job.name, peer, count, *pair)))
                        print(row(found["pairs"][-1]), file=sys.stderr)
            except BadInput as error:
                found["left_out"][f"{peer}, {name}{', adapter on' if adapter else ''}"] = str(error)
                print(f"bench: going on without {peer}: {error}", file=sys.stderr)


@contextmanager
def opened(peer: str, name: str, adapter: Path | None, tokenizer: Any, own: Any, found: dict) -> Iterator[Callable]:
    """A peer with its model loaded, to be given prompts and a limit. Raises BadInput where it is not installed."""
    from bench import peers
    from bench.vllm_peer import Asked
    from stages.lib.generate.engine import end_tokens
    from stages.lib.model import models
    from stages.lib.model.sources import find

    source = find(name, None)
    if peer in (VLLM, OVER_VLLM):
        if not peers.vllm_python():
            raise BadInput("no Python of vLLM's environment; `make bench` makes one, $AFTERTUNE_VLLM names another")
        asked = Asked(
            way="vllm" if peer == VLLM else "lm_eval",
            model=source.path,
            adapter=str(adapter) if adapter else None,
            dtype=str(own.dtype).removeprefix("torch."),
            prompts=[],
            ids=[],
            limit=1,
            stop=sorted(end_tokens(own, tokenizer)),
            end=tokenizer.eos_token,
        )
        with peers.in_vllm(asked, tokenizer, found["vllm"]) as theirs:
            yield theirs
        return
    if peer == OVER_HF and not peers.installed("lm_eval"):
        raise BadInput("lm_eval is not installed (bench/requirements.txt)")
    model = models.load_base(source, "none", "bfloat16")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    yield peers.lm_eval(model, tokenizer, 32) if peer == OVER_HF else peers.continuous(model, tokenizer)


def paired(
    ours: Callable, theirs: Callable, prompts: list[str], warm: list[str], limit: int, rounds: int
) -> tuple[list[float], list[float], float]:
    """Seconds per prompt of both, round by round in turn, and how much of their last answers is alike."""
    texts: list[list[str]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for each in (ours, theirs):
        each(warm, min(limit, 8))
    for _ in range(rounds):
        for side, each in enumerate((ours, theirs)):
            taken, texts[side] = each(prompts, limit)
            seconds[side].append(round(taken / len(prompts), 4))
    return seconds[0], seconds[1], round(alike(*texts), 3)


def alike(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """The share of the longer of two answers that both begin with, over all prompts."""
    pairs = [(one.strip(), other.strip()) for one, other in zip(ours, theirs, strict=True)]
    return mean(len(commonprefix(pair)) / max(1, *map(len, pair)) if any(pair) else 1.0 for pair in pairs)


def ratios(pair: dict) -> list[float]:
    """How many times ours a peer took, in each round."""
    return [other / own for own, other in zip(pair["ours"], pair["theirs"], strict=True)]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean of some rounds, and the lowest and highest of them."""
    return f"{mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def where(each: dict) -> str:
    """The first cells of a row: model, adapter and work."""
    return f"| {each['model'].removeprefix('embedded/')} | {'on' if each['adapter'] else 'off'} | {each['work']} "


def row(pair: dict) -> str:
    """A pair as a row of the table."""
    times = spread(ratios(pair), 2)
    return (
        f"{where(pair)}| {pair['peer']} | {pair['prompts']} | {spread(pair['ours'])} | {spread(pair['theirs'])} "
        f"| {times} | {pair['alike']:.0%} |"
    )


def heading(found: dict) -> str:
    """What a run was made on and with, and whether other work ran beside it."""
    machine, versions = found["machine"], {**found["vllm"], **found["machine"]}
    loaded = "other work ran beside it" if found["load"] > 0.5 else "nothing ran beside it"
    made_with = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "vllm") if name in versions)
    return f"{machine['processor']}, {machine['cores']} cores, {made_with}; load before: {found['load']:.1f}, {loaded}."


def table(found: dict) -> str:
    """Every pair of a processor, in Markdown."""
    names = "| model | adapter | work | peer | prompts | ours, s a prompt | the peer's | times ours | alike |"
    return "\n".join([names, "|---|---|---|---|---|---|---|---|---|", *map(row, found["pairs"])])


def floors(found: dict) -> str:
    """Each work's floor and the share of it that ours and vLLM reach, in Markdown.

    The rates are the best that were seen of a model in the run: what else runs can only have lowered them.
    """
    lines = ["| model | adapter | work | prompts | GFLOP a prompt | GFLOP/s, prompts, new tokens | floor, s a prompt "]
    lines[0] += "| share that ours reaches | that vLLM reaches |"
    lines.append("|---|---|---|---|---|---|---|---|---|")
    of_model, same = ("model", "prompts"), ("model", "adapter", "work", "prompts")
    for least in found["floors"]:
        full = [pair for pair in found["pairs"] if all(pair[key] == least[key] for key in same)]
        ours = [seconds for pair in full for seconds in pair["ours"]]
        theirs = [seconds for pair in full if pair["peer"] == VLLM for seconds in pair["theirs"]]
        seen = [f["gflop_per_second"] for f in found["floors"] if all(f[key] == least[key] for key in of_model)]
        rates = [max(each) for each in zip(*seen, strict=True)]
        seconds = sum(gflop / rate for gflop, rate in zip(least["gflop"], rates, strict=True))
        reached = (f"{seconds / mean(took):.0%}" if took else "not run" for took in (ours, theirs))
        lines.append(
            f"{where(least)}| {least['prompts']} | {sum(least['gflop']):.1f} "
            f"| {', '.join(f'{rate:.0f}' for rate in rates)} | {seconds:.4f} | {' | '.join(reached)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
