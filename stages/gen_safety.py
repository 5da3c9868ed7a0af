"""gen_safety: data/prepared/{hazards,benign}.jsonl and models/<subject> → data/generated/<subject>/safety.jsonl.

    python -m stages.gen_safety base|tuned

Greedy responses to the hazard prompts and then to the benign ones, each as a single user turn. Killed at any
moment, the same command goes on after the last finished batch of gen_safety.batch_size prompts.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, generated
from stages.lib.base.params import load_params
from stages.lib.base.processes import spread
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Prompt, read_jsonl
from stages.lib.model.models import check_present
from stages.lib.prompts.chat import safety_messages


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    check_present(params.model.name)
    check_inputs()
    prompts = [
        *read_jsonl(PREPARED / "hazards.jsonl", Prompt),
        *read_jsonl(PREPARED / "benign.jsonl", Prompt),
    ]

    spread(params.machine.processes)
    from stages.lib.generate.subjects import write_answers

    write_answers(
        stage="gen_safety",
        subject=subject,
        params={"model": params.model, "gen_safety": params.gen_safety},
        inputs=[PREPARED / "hazards.jsonl", PREPARED / "benign.jsonl"],
        ids=[row.id for row in prompts],
        conversations=[safety_messages(row.text) for row in prompts],
        path=generated(subject) / "safety.jsonl",
    )


if __name__ == "__main__":
    run(main)
