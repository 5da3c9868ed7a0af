"""gen_math: data/prepared/{test,shots,skills}.jsonl and models/<subject> → data/generated/<subject>/math.jsonl.

    python -m stages.gen_math base|tuned

Greedy answers to the test questions, behind the same fixed example problems that training used, and then, set by set,
to a reader's own questions. Killed at any moment, the same command goes on after the last finished batch of
gen_math.batch_size questions.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, weights
from stages.lib.base.params import load_params
from stages.lib.base.rows import Problem, Skill
from stages.lib.base.sections import started_from
from stages.lib.model.opening import Task, begin
from stages.lib.prompts.chat import math_messages
from stages.lib.prompts.own import by_set, skill_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    model = started_from(subject, params.model, params.base)
    task = Task(
        name=f"gen_math-{subject}",
        params={
            "model": model,
            "fewshot": params.fewshot,
            "generate": params.generate,
            "gen_math": params.gen_math,
            **({"lora": params.lora} if subject == "tuned" else {}),
        },
        files={PREPARED / "test.jsonl": Problem, PREPARED / "shots.jsonl": Problem},
        own={PREPARED / "skills.jsonl": Skill},
        model=model.name,
        folders=[weights(subject)],
        server=params.generate.asks(subject),
    )
    questions, pool, skills = begin(task, params.machine.processes)
    shots, system = pool[: params.fewshot.shots], params.fewshot.system.testing

    from stages.lib.generate.subjects import Asked, write_answers

    asked = Asked("", [(row.id, math_messages(row.question, shots, system)) for row in questions])
    own = [
        Asked(
            name,
            [(row.id, skill_messages(row, shots, system)) for row in rows],
            [len(row.choices or ()) for row in rows],
        )
        for name, rows in by_set(skills).items()
    ]
    write_answers(task, subject, [asked, *own], params, params.gen_math, "math.jsonl")


if __name__ == "__main__":
    run(main)
