"""lm-evaluation-harness on prompts that are rendered already: a task file gives it them; its generation alone is timed.

Used in this project's environment with its `hf` model and in vLLM's with its `vllm` model (vllm_peer.py), so nothing of
the project is imported here.
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASK = """task: prompts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: ""
num_fewshot: 0
generation_kwargs: {{until: ["{end}"], max_gen_toks: {limit}, do_sample: false, temperature: 0.0}}
metric_list: [{{metric: exact_match}}]
"""


def answers(harness: Any, prompts: Sequence[str], end: str, limit: int) -> tuple[float, list[str]]:
    """Seconds and answers of one of the harness's models; each answer ends before `end` or at the limit of tokens."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    taken = []
    generate = harness.generate_until

    def timed(*args: Any, **kwargs: Any) -> list[str]:
        start = time.perf_counter()
        out = generate(*args, **kwargs)
        taken.append(time.perf_counter() - start)
        return out

    harness.generate_until = timed
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            file = Path(folder, "prompts.jsonl")
            file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
            task = Path(folder, "prompts.yaml")
            task.write_text(TASK.format(file=file, end=end, limit=limit), encoding="utf-8")
            found = simple_evaluate(
                harness, tasks=["prompts"], task_manager=TaskManager(include_path=folder), bootstrap_iters=0
            )
    finally:
        harness.generate_until = generate
    samples = sorted(found["samples"]["prompts"], key=lambda sample: sample["doc_id"])
    return sum(taken), [sample["resps"][0][0] for sample in samples]
