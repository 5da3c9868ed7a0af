"""gen_math: data/prepared/{test,shots}.jsonl and models/<subject> → data/generated/<subject>/math.jsonl.

    python -m stages.gen_math base|tuned

Greedy answers to the test questions, behind the same fixed example problems that training used. Killed at any
moment, the same command goes on after the last finished batch of gen_math.batch_size questions.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, weights
from stages.lib.base.params import load_params
from stages.lib.base.rows import Problem
from stages.lib.base.sections import started_from
from stages.lib.model.opening import Task, begin
from stages.lib.prompts.chat import math_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    model = started_from(subject, params.model, params.base)
    task = Task(
        name=f"gen_math-{subject}",
        params={
            "model": model,
            "fewshot": params.fewshot,
            "gen_math": params.gen_math,
            **({"lora": params.lora} if subject == "tuned" else {}),
        },
        files={PREPARED / "test.jsonl": Problem, PREPARED / "shots.jsonl": Problem},
        model=model.name,
        folders=[weights(subject)],
    )
    questions, pool = begin(task, params.machine.processes)
    shots = pool[: params.fewshot.shots]

    from stages.lib.generate.subjects import write_answers

    asked = [(row.id, math_messages(row.question, shots, params.fewshot.system.testing)) for row in questions]
    write_answers(task, subject, asked, params, params.gen_math, "math.jsonl")


if __name__ == "__main__":
    run(main)
