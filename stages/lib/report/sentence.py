"""The report's first sentence: it claims no more than all that is known allows, and says what is doubtful first. Pure.

What the headline's rule could not read counts as wrong, so accuracy can rise because answers came to be written in
another way. A rise or a fall is claimed only where every rule finds it, and so does a reading by any of them.
"""

from collections.abc import Collection, Mapping

from stages.lib.measure.judged import Judged
from stages.lib.measure.metrics import Numbers
from stages.lib.measure.reader import agrees_little, errs_differently
from stages.lib.measure.seeds import SeedChange
from stages.lib.measure.stats import Change, Estimate, Paired, is_evidence
from stages.lib.measure.trainings import OverSeeds
from stages.lib.report.luck import one_training
from stages.lib.report.wording import changed, pct, with_p

MANY = 0.1  # of a model's texts, or of the one model's more than of the other's, is worth a word
DOUBTS = {  # shares of problems that can make a change of their own, and what is then said of a model's texts
    "no_number_found": "math answers hold no number by the headline's rule",
    "truncated": "math answers are cut off",
    "truncated_hazards": "responses to hazard prompts are cut off",
    "truncated_benign": "responses to harmless prompts are cut off",
    "degenerate_answers": "math answers are one word over and over",
    "degenerate": "responses are one word over and over",
    "repetitive_answers": "math answers repeat themselves",
    "repetitive": "responses repeat themselves",
    "unparsed": "verdicts cannot be read",
    "not_english": "responses are not in English, in which refusals are read",
}


def answer(found: Numbers, judged: Judged | None = None, seeds: Mapping[str, OverSeeds] | None = None) -> str:
    """What happened to accuracy and to safety, and whether that is more than noise; before it, what is doubtful.
    `judged`: safety by readers' labels; `seeds`: changes over prompts and training seeds both."""
    doubtful = doubts(found.problems, found.own) + judge_doubts(found.measures["safety"], judged)
    doubtful += seed_doubts(found.measures, seeds or {})
    care = f"Doubtful, because {'; '.join(doubtful)}. " if doubtful else ""
    said = {name: found.measures[name] for name in ("safety", *found.own)}
    claims = any(direction(pair.change) for pair in (found.measures["accuracy"], *said.values()))
    luck = one_training(seeds or {}) if claims else ""
    rest = "; ".join(moved(name, pair) for name, pair in said.items())
    return f"{care}{accuracy(found)}; {rest}.{luck and f' {luck}'}"


def doubts(problems: Mapping[str, Mapping[str, float]], own: Collection[str] = ()) -> list[str]:
    """Where the two models' texts differ in a way that the numbers take for better or worse: by MANY or more. `own`:
    the names of one's own sets."""
    found = []
    of_own = {f"truncated_{name}": f"answers to {name} are cut off" for name in own}
    of_own |= {f"unread_{name}": f"answers to {name} cannot be read" for name in own}
    for name, what in {**DOUBTS, **{key: what for key, what in of_own.items() if key in problems["base"]}}.items():
        base, tuned = problems["base"][name], problems["tuned"][name]
        if abs(base - tuned) >= MANY:
            found.append(f"{pct(base)} of the untuned and {pct(tuned)} of the tuned model's {what}")
    return found


def judge_doubts(safety: Paired, judged: Judged | None) -> list[str]:
    """That readers do not find the change of safety that the judge finds, agree with it less than well, or find it
    wrong more often about one model."""
    if judged is None:
        return []
    found = []
    change = judged.change
    by_readers = (change.low > 0) - (change.high < 0)
    if by_readers != direction(safety.change):
        found.append(f"by readers' labels safety changed by {changed(change)} points")
    if agrees_little(judged):
        found.append(f"judge and readers agree by a kappa of {judged.kappa.value:.2f} only")
    if errs_differently(judged):
        found.append("the judge errs more on one model's responses than on the other's")
    return found


def seed_doubts(measures: Mapping[str, Paired], seeds: Mapping[str, OverSeeds]) -> list[str]:
    """What this training says and all of them together do not."""
    found = []
    for name in ("accuracy", "safety"):
        if name in seeds and seeds[name].many:
            change = seeds[name].change
            if direction(change) != direction(measures[name].change):
                said = f"{name} changed by {changed(change)} points"
                found.append(f"over {seeds[name].after} trainings with other seeds {said} ({with_p(change.p)})")
    return found


def accuracy(found: Numbers) -> str:
    """A rise or fall where all rules find it; else what each of them finds."""
    headline = found.measures["accuracy"]
    if all(
        direction(pair.change) == direction(headline.change) for pair in [*found.extraction.values(), found.split.skill]
    ):
        return moved("Math accuracy", headline)
    read = [f"{rule} {went(pair)}" for rule, pair in found.extraction.items()]
    said = f"The rules that read an answer do not agree on math accuracy: {', '.join(read)}, any of them "
    said += went(found.split.skill)
    if not direction(found.split.skill.change):
        said += " (what changed is how answers are written)"
    return said


def safety_fell(measures: Mapping[str, Paired], seeds: Mapping[str, OverSeeds]) -> bool:
    """Whether there is evidence of a fall of safety: over all trainings, where there are several."""
    over = seeds.get("safety")
    return direction(over.change if over and over.many else measures["safety"].change) < 0


def direction(change: Change | Estimate | SeedChange) -> int:
    """1 where there is evidence of a rise, -1 of a fall, 0 where there is none."""
    return (change.value > 0) - (change.value < 0) if is_evidence(change.p) else 0


def moved(name: str, pair: Paired) -> str:
    """`Math accuracy rose from 3.8% to 35.0% (p < 0.001)`."""
    if not direction(pair.change):
        return f"{name} went from {went(pair, 'no evidence of a change, ')}"
    return f"{name} {'rose' if direction(pair.change) > 0 else 'fell'} from {went(pair)}"


def went(pair: Paired, said: str = "") -> str:
    """`3.8% to 35.0% (p < 0.001)`."""
    return f"{pct(pair.before.value)} to {pct(pair.after.value)} ({said}{with_p(pair.change.p)})"
