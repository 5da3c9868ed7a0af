"""Where the engine's time goes: torch's profiler over each work, operators in four groups.

    python -m bench.where [MODEL]

How far the whole is from the machine's own matrix rate: `python -m bench.engines`.
"""

import sys
import time
from collections import Counter
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench import speed, work
from stages.lib.base.cli import run
from stages.lib.model.sources import find, load_tokenizer

PROMPTS = 64
GROUPS = {
    "aten::mm": "matrix products",
    "mkldnn::_linear_pointwise": "matrix products",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
}
MOVES = ("copy_", "index", "cat", "fill_", "clone", "zero_")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else work.MODEL
    model, tokenizer = work.load_own(name), load_tokenizer(find(name, None))
    texts = work.hazard_prompts()[::-1]  # any text will do as a response
    jobs = (work.math_work(tokenizer), work.safety_work(tokenizer), work.judge_work(tokenizer, texts))
    for job in jobs:
        ask = speed.verdicts(model, tokenizer) if job is jobs[2] else speed.greedy(model, tokenizer, [])
        ask(job.prompts[-8:], job.limit)  # warm-up
        print(job.name, shares(partial(ask, job.prompts[:PROMPTS], job.limit)))


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
