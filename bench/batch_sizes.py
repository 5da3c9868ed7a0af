"""Which batch size suits lm-evaluation-harness best on this machine: 5-shot math at several, on the same prompts.

python -m bench.batch_sizes
"""

from bench import peers, work
from stages.lib import models


def main() -> None:
    models.quiet()
    source = models.find("embedded/smollm2-135m", None)
    tokenizer = models.load_tokenizer(source)
    model = models.load_base(source, "none", "bfloat16")
    job = work.math_work(tokenizer)
    for size in (16, 32, 64):
        seconds, _ = peers.lm_eval(model, tokenizer, size)(job.prompts[:64], job.limit)
        print(f"lm-eval hf, batches of {size}: {seconds / 64:.3f} s per prompt", flush=True)


if __name__ == "__main__":
    main()
