"""gen_math: data/prepared/{test,shots}.jsonl and models/<subject> → data/generated/<subject>/math.jsonl.

    python -m stages.gen_math base|tuned

Greedy answers to the test questions, behind the same fixed example problems that training used. Killed at any
moment, the same command goes on after the last finished batch of gen_math.batch_size questions.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, generated
from stages.lib.base.params import load_params
from stages.lib.base.processes import spread
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Problem, read_jsonl
from stages.lib.model.models import check_present
from stages.lib.prompts.chat import math_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    check_present(params.model.name)
    check_inputs()
    questions = read_jsonl(PREPARED / "test.jsonl", Problem)
    shots = read_jsonl(PREPARED / "shots.jsonl", Problem)[: params.fewshot.shots]

    spread(params.machine.processes)
    from stages.lib.generate.subjects import write_answers

    write_answers(
        stage="gen_math",
        subject=subject,
        params={"model": params.model, "fewshot": params.fewshot, "gen_math": params.gen_math},
        inputs=[PREPARED / "test.jsonl", PREPARED / "shots.jsonl"],
        ids=[row.id for row in questions],
        conversations=[math_messages(row.question, shots) for row in questions],
        path=generated(subject) / "math.jsonl",
    )


if __name__ == "__main__":
    run(main)
