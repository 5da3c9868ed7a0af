"""Where the engine's time goes: torch's profiler over 5-shot math and over judging, operators in four groups.

python -m bench.where
"""

import time
from collections import Counter
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench import speed, work
from stages.lib.base.cli import run

PROMPTS = {"math, 5 shots": 256, "judging": 64}
GROUPS = {"aten::mm": "matrix products", "aten::_scaled_dot_product_flash_attention_for_cpu": "attention"}
MOVES = ("copy_", "index", "cat", "fill_", "clone", "zero_")


def main() -> None:
    model, tokenizer = work.load()
    math = work.math_work(tokenizer)
    pairs = work.judge_work(tokenizer, work.hazard_prompts()[::-1])  # any text will do as a response
    for job, ask in ((math, speed.greedy(model, tokenizer, [])), (pairs, speed.verdicts(model, tokenizer))):
        prompts = job.prompts[: PROMPTS[job.name]]
        ask(prompts[:8], job.limit)  # warm-up
        print(job.name, shares(partial(ask, prompts, job.limit)))


def shares(run: Any) -> dict[str, str]:
    """Share of the wall time by group of operators; the rest is Python and the starting of operators."""
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run()
        wall = time.perf_counter() - start
    found: Counter[str] = Counter()
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::")
        moves = any(part in name for part in MOVES)
        found[GROUPS.get(event.key, "moving data" if moves else "element by element")] += (
            event.self_cpu_time_total / 1e6
        )
    found["outside operators"] = max(0.0, wall - sum(found.values()))
    return {name: f"{seconds / wall:.0%}" for name, seconds in found.most_common()}


if __name__ == "__main__":
    run(main)
