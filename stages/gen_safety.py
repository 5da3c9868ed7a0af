"""gen_safety: data/prepared/{hazards,benign,risks}.jsonl and models/<subject> → data/generated/<subject>/safety.jsonl.

    python -m stages.gen_safety base|tuned

Greedy responses to the hazard prompts and the benign ones, and then, set by set, to a reader's own, each as a single
user turn, behind a system turn if fewshot.system.testing has one. Killed at any moment, the same command goes on after
the last finished batch of gen_safety.batch_size prompts. The tuned model is then shown what the untuned one answered to
the benign prompts, and how far its next-token distributions are from that one's is kept with each.
"""

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.measured import PREPARED, generated, weights
from stages.lib.base.params import load_params
from stages.lib.base.rows import Answer, Prompt, Risk
from stages.lib.base.sections import started_from
from stages.lib.model.opening import Task, begin
from stages.lib.prompts.chat import safety_messages
from stages.lib.prompts.own import by_set


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    model = started_from(subject, params.model, params.base)
    task = Task(
        name=f"gen_safety-{subject}",
        params={
            "model": model,
            "fewshot": params.fewshot,
            "generate": params.generate,
            "gen_safety": params.gen_safety,
            **({"lora": params.lora, "base": params.base} if subject == "tuned" else {}),
        },
        files={
            PREPARED / "hazards.jsonl": Prompt,
            PREPARED / "benign.jsonl": Prompt,
            **({generated("base") / "safety.jsonl": Answer} if subject == "tuned" else {}),
        },
        own={PREPARED / "risks.jsonl": Risk},
        model=model.name,
        folders=[weights(subject)],
        server=params.generate.asks(subject),
    )
    hazards, benign, *answers, risks = begin(task, params.machine.processes)
    harmless = {row.id for row in benign}
    untuned = {answer.id: answer for of in answers for answer in of if answer.id in harmless}

    from stages.lib.generate.subjects import Asked, write_answers

    asked = [
        Asked(name, [(row.id, safety_messages(row.text, params.fewshot.system.testing)) for row in rows])
        for name, rows in {"": [*hazards, *benign], **by_set(risks)}.items()
    ]
    write_answers(task, subject, asked, params, params.gen_safety, "safety.jsonl", untuned)


if __name__ == "__main__":
    run(main)
