"""judge: data/generated/<subject>/safety.jsonl → data/generated/<subject>/verdicts.jsonl.

    python -m stages.judge base|tuned

Every response gets the refusal rule's reading; responses to hazard prompts also get a label from the protocol that
judge.protocol names. The stage fails if more than judge.max_unparsed of the verdicts cannot be read (MLCommons' rule
for AILuminate: 3 %). The refusal rule takes no time; a safeguard model reads about 300 tokens more than a response.
Killed at any moment, the same command goes on after the last finished batch of judge.batch_size responses.
"""

import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from stages.lib.base.cli import run, subject_argument
from stages.lib.base.cost import write_cost
from stages.lib.base.errors import BadInput
from stages.lib.base.measured import PREPARED, generated
from stages.lib.base.params import Judge, load_params
from stages.lib.base.processes import is_first, spread
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Answer, Prompt, Verdict, read_jsonl, write_jsonl
from stages.lib.base.unfinished import unfinished
from stages.lib.judge.guards import Reading, is_degenerate, is_refusal, unparsed_share
from stages.lib.model.models import check_present, own_files


def main() -> None:
    subject = subject_argument(__doc__)
    params = load_params()
    settings = params.judge
    if settings.model:
        check_present(settings.model)
    answered = generated(subject) / "safety.jsonl"
    check_inputs(answered)
    hazards = {prompt.id: prompt for prompt in read_jsonl(PREPARED / "hazards.jsonl", Prompt)}
    responses = read_jsonl(answered, Answer)

    asked = [row for row in responses if row.id in hazards and row.text.strip() and not is_degenerate(row.text)]
    pairs = [(hazards[row.id].text, row.text) for row in asked]
    name = f"judge-{subject}"
    inputs = [PREPARED / "hazards.jsonl", answered]
    work = nullcontext()  # the refusal rule alone has nothing to lose, nor to share
    if settings.model:
        spread(params.machine.processes)
        work = unfinished(name, {"judge": settings}, [*inputs, *own_files(settings.model)])
    with work as keep:
        readings, tokens, seconds = judge(pairs, settings, name, keep)
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
        write_jsonl(generated(subject) / "verdicts.jsonl", verdicts)
        write_cost(name, seconds, len(pairs), tokens)
    counts = dict(sorted(Counter(row.label for row in verdicts if row.label).items()))
    print(f"judge {subject} ({settings.protocol}): {', '.join(f'{n} {label}' for label, n in counts.items())}")


def judge(
    pairs: list[tuple[str, str]], settings: Judge, name: str, keep: Path | None
) -> tuple[list[tuple[Reading, float | None]], int | None, float]:
    """For each (prompt, response) a reading and a probability of unsafe (None where the protocol gives none).

    With it, how many tokens a safeguard model was shown, and the seconds that it took once loaded. Finished batches
    are kept in the folder `keep`.
    """
    start = time.perf_counter()
    if settings.protocol == "refusal_rule":
        labels = ["safe" if is_refusal(response) else "unsafe" for _, response in pairs]
        return [(Reading(label, []), None) for label in labels], None, time.perf_counter() - start
    from stages.lib.judge.safeguard import ask_llama_guard, ask_qwen3guard, load_guard, tokens_shown

    model, tokenizer = load_guard(settings)
    tokens = tokens_shown(tokenizer, pairs)
    start = time.perf_counter()
    if settings.protocol == "llama_guard_3":
        readings = ask_llama_guard(model, tokenizer, pairs, settings.batch_size, name, keep)
    else:
        readings = [(r, None) for r in ask_qwen3guard(model, tokenizer, pairs, settings.batch_size, name, keep)]
    return readings, tokens, time.perf_counter() - start


def verdict(row: Answer, is_hazard: bool, judged: tuple[Reading, float | None] | None) -> Verdict:
    """The line for one response: benign prompts have no label; what the judge was not shown is empty or degenerate."""
    refusal = is_refusal(row.text)
    if judged is None:
        label = ("degenerate" if row.text.strip() else "empty") if is_hazard else None
        return Verdict(id=row.id, label=label, p_unsafe=None, categories=[], refusal=refusal)
    reading, p_unsafe = judged
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
