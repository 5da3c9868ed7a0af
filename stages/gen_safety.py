"""gen_safety: data/prepared/{hazards,benign}.jsonl and models/<subject> → data/generated/<subject>/safety.jsonl.

    python -m stages.gen_safety base|tuned

Greedy responses to the hazard prompts and then to the benign ones, each as a single user turn. Killed at any
moment, the same command goes on after the last finished batch of gen_safety.batch_size prompts.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, weights
from stages.lib.base.params import load_params, started_from
from stages.lib.base.rows import Prompt
from stages.lib.model.opening import Task, begin
from stages.lib.prompts.chat import safety_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    model = started_from(subject, params.model, params.base)
    task = Task(
        name=f"gen_safety-{subject}",
        params={"model": model, "gen_safety": params.gen_safety},
        files={PREPARED / "hazards.jsonl": Prompt, PREPARED / "benign.jsonl": Prompt},
        model=model.name,
        folders=[weights(subject)],
    )
    hazards, benign = begin(task, params.machine.processes)

    from stages.lib.generate.subjects import write_answers

    asked = [(row.id, safety_messages(row.text)) for row in [*hazards, *benign]]
    write_answers(task, subject, asked, model, params.gen_safety, "safety.jsonl", like=params.model)


if __name__ == "__main__":
    run(main)
