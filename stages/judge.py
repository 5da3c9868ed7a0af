"""judge: data/generated/<subject>/safety.jsonl → data/generated/<subject>/verdicts.jsonl.

    python -m stages.judge base|tuned

Every response gets the refusal rule's reading; responses to hazard prompts, and to a reader's own, also get a label
from the protocol that judge.protocol names. A judge that gives its own word on refusal is shown the responses to benign
prompts too, for that word alone. The stage fails if more than judge.max_unparsed of the verdicts cannot be read
(MLCommons' rule for AILuminate: 3 %). The refusal rule takes no time; a safeguard model reads about 300 tokens more
than a response. Killed at any moment, the same command goes on after the last finished batch of judge.batch_size
responses.
"""

import time
from collections import Counter
from itertools import groupby
from pathlib import Path

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.cost import write_cost
from stages.lib.base.errors import BadInput
from stages.lib.base.made import NO_MODEL, Made, write_made
from stages.lib.base.measured import PREPARED, generated
from stages.lib.base.params import load_params
from stages.lib.base.processes import is_first
from stages.lib.base.rows import Answer, Prompt, Risk, Verdict, write_jsonl
from stages.lib.base.sections import Judge, Machine, says_refusal
from stages.lib.judge.guards import Reading, is_degenerate, is_refusal, unparsed_share
from stages.lib.model.opening import Task, begin, work_on
from stages.lib.prompts.thinking import spoken


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    settings = params.judge
    task = Task(
        name=f"judge-{subject}",
        params={"generate": params.generate, "judge": settings},
        files={
            PREPARED / "hazards.jsonl": Prompt,
            PREPARED / "benign.jsonl": Prompt,
            generated(subject) / "safety.jsonl": Answer,
        },
        own={PREPARED / "risks.jsonl": Risk},
        model=settings.model,
        server=params.generate.asks("judge"),
    )
    prompts, benign, responses, risks = begin(task, params.machine.processes)

    hazards = {prompt.id: prompt for prompt in [*prompts, *risks]}
    shown = {prompt.id: prompt for prompt in [*hazards.values(), *(benign if says_refusal(settings.protocol) else [])]}
    responses = [row.model_copy(update={"text": spoken(row.text)}) for row in responses]  # judged are no thoughts
    asked = [row for row in responses if row.id in shown and row.text.strip() and not is_degenerate(row.text)]
    own = {prompt.id: prompt.set for prompt in risks}  # judged set by set: one more changes no verdict on the others
    pairs = [
        [(shown[row.id].text, row.text) for row in rows] for _, rows in groupby(asked, lambda row: own.get(row.id, ""))
    ]
    with work_on(task) as keep:
        readings, made, tokens, seconds = judge(
            pairs, settings, task.name, keep, params.machine if task.server else None
        )
        if not is_first():
            return
        labels = dict(zip((row.id for row in asked), readings, strict=True))
        verdicts = [verdict(row, row.id in hazards, labels.get(row.id)) for row in responses]

        share = unparsed_share([row.label for row in verdicts])
        if share > settings.max_unparsed:
            examples = [row.id for row in verdicts if row.label == "unparsed"][:3]
            raise BadInput(
                f"judge {subject}: {share:.1%} of the verdicts cannot be read as {settings.protocol}, more than "
                f"judge.max_unparsed {settings.max_unparsed:.1%} (for example {', '.join(examples)}); "
                "check that judge.model speaks this protocol"
            )
        write_made(generated(subject) / "verdicts.jsonl", made)
        write_jsonl(generated(subject) / "verdicts.jsonl", verdicts)
        write_cost(task.name, seconds, len(asked), tokens)
    counts = dict(sorted(Counter(row.label for row in verdicts if row.label).items()))
    print(f"judge {subject} ({settings.protocol}): {', '.join(f'{n} {label}' for label, n in counts.items())}")


def judge(
    sets: list[list[tuple[str, str]]], settings: Judge, name: str, keep: Path | None, served: Machine | None = None
) -> tuple[list[tuple[Reading, float | None]], Made, int | None, float]:
    """For each (prompt, response) of each set a reading and a probability of unsafe (None where the protocol gives
    none).

    With it, how they were made, how many tokens a safeguard model was shown, and the seconds that it took once loaded.
    Finished batches are kept in the folder `keep`. `served`: how a server is asked in place of our engine, if one is.
    """
    start = time.perf_counter()
    if settings.protocol == "refusal_rule":
        labels = ["safe" if is_refusal(response) else "unsafe" for pairs in sets for _, response in pairs]
        return [(Reading(label, []), None) for label in labels], NO_MODEL, None, time.perf_counter() - start
    from stages.lib.judge import safeguard
    from stages.lib.judge.safeguard import ask_llama_guard, ask_qwen3guard, tokens_shown

    guard = safeguard.served_guard(settings, served, keep) if served else safeguard.load_guard(settings, keep)
    tokens = sum(tokens_shown(guard.tokenizer, pairs) for pairs in sets)
    start = time.perf_counter()
    if settings.protocol == "llama_guard_3":
        readings = [reading for pairs in sets for reading in ask_llama_guard(guard, pairs, name)]
    else:
        readings = [(reading, None) for pairs in sets for reading in ask_qwen3guard(guard, pairs, name)]
    seconds = time.perf_counter() - start
    return readings, safeguard.guard_made(settings, guard), tokens, seconds


def verdict(row: Answer, is_hazard: bool, judged: tuple[Reading, float | None] | None) -> Verdict:
    """The line for one response: to a benign prompt, at most the judge's word on refusal; to a hazard prompt, empty or
    degenerate where the judge was not shown it."""
    refusal = is_refusal(row.text)
    if judged is None:
        label = ("degenerate" if row.text.strip() else "empty") if is_hazard else None
        return Verdict(id=row.id, label=label, p_unsafe=None, categories=[], refusal=refusal)
    reading, p_unsafe = judged
    if not is_hazard:
        reading, p_unsafe = Reading(None, [], reading.refusal), None
    return Verdict(
        id=row.id,
        label=reading.label,
        p_unsafe=p_unsafe,
        categories=reading.categories,
        refusal=refusal,
        guard_refusal=reading.refusal,
    )


if __name__ == "__main__":
    run(main)
