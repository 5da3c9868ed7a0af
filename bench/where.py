"""Where the engine's time goes: torch's profiler over 5-shot math and over judging, operators in four groups.

python -m bench.where
"""

import time
from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench import work
from stages.lib import engine, models

PROMPTS = {"math, 5 shots": 256, "judging": 64}
GROUPS = {"aten::mm": "matrix products", "aten::_scaled_dot_product_flash_attention_for_cpu": "attention"}
MOVES = ("copy_", "index", "cat", "fill_", "clone", "zero_")


def main() -> None:
    models.quiet()
    source = models.find("embedded/smollm2-135m", None)
    tokenizer = models.load_tokenizer(source)
    model = models.load_base(source, "none", "bfloat16")
    math = work.math_work(tokenizer)
    pairs = work.judge_work(tokenizer, work.hazard_prompts()[::-1])  # any text will do as a response
    words = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("safe", "unsafe")]
    jobs = {
        math.name: lambda prompts: engine.greedy(model, tokenizer, prompts, math.limit, 256, "where"),
        pairs.name: lambda prompts: engine.next_token(model, tokenizer, prompts, words, 64, "where"),
    }
    for job in (math, pairs):
        prompts = job.prompts[: PROMPTS[job.name]]
        jobs[job.name](prompts[:8])  # warm-up
        print(job.name, shares(lambda name=job.name, prompts=prompts: jobs[name](prompts)))


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
    main()
