"""gen_safety: data/prepared/{hazards,benign}.jsonl and models/<subject> → data/generated/<subject>/safety.jsonl.

    python -m stages.gen_safety base|tuned

Greedy responses to the hazard prompts and then to the benign ones, each as a single user turn, behind a system turn if
fewshot.system.testing has one. Killed at any moment, the same command goes on after the last finished batch of
gen_safety.batch_size prompts.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, weights
from stages.lib.base.params import load_params
from stages.lib.base.rows import Prompt
from stages.lib.model.opening import Task, begin
from stages.lib.prompts.chat import safety_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    task = Task(
        name=f"gen_safety-{subject}",
        params={
            **{"model": params.model, "fewshot": params.fewshot, "gen_safety": params.gen_safety},
            **({"lora": params.lora} if subject == "tuned" else {}),
        },
        files={PREPARED / "hazards.jsonl": Prompt, PREPARED / "benign.jsonl": Prompt},
        model=params.model.name,
        folders=[weights(subject)],
    )
    hazards, benign = begin(task, params.machine.processes)

    from stages.lib.generate.subjects import write_answers

    asked = [(row.id, safety_messages(row.text, params.fewshot.system.testing)) for row in [*hazards, *benign]]
    write_answers(task, subject, asked, params.model, params.gen_safety, "safety.jsonl", params.lora.strength)


if __name__ == "__main__":
    run(main)
