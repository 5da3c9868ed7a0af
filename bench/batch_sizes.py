"""Which batch size suits lm-evaluation-harness best on this machine: 5-shot math at several, on the same prompts.

python -m bench.batch_sizes
"""

from bench import peers, work
from stages.lib.base.cli import run


def main() -> None:
    model, tokenizer = work.load()
    job = work.math_work(tokenizer)
    for size in (16, 32, 64):
        seconds, _ = peers.lm_eval(model, tokenizer, size)(job.prompts[:64], job.limit)
        print(f"lm-eval hf, batches of {size}: {seconds / 64:.3f} s per prompt", flush=True)


if __name__ == "__main__":
    run(main)
