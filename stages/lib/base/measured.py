"""What is measured, of whom, and where its files lie.

The report, the review, the gate, the pages and the charts read this table; one more set of prompts is one more entry
and the stage that asks it. A reader's own sets (`sets` in params.yaml) stand in it behind the built-in ones: questions
are asked by gen_math, prompts for the judge by gen_safety, and their answers lie in the same files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stages.lib.base.rows import Problem, Prompt, Risk, Skill

SUBJECTS = ("base", "tuned")  # the untuned model and the tuned one
PREPARED = Path("data/prepared")


@dataclass(frozen=True)
class PromptSet:
    """A set of prompts and the measure that is read from the answers to it.

    `item`: what one prompt is called; `prompts`, `answers`, `verdicts`: files under data/prepared and, of the others,
    data/generated/<subject>; `row`: what a line of prompts is;
    `measure`: its key in metrics, and its name in words; `lost` and `won`: a prompt whose answer got worse or better;
    `limit`: the review's parameter.
    """

    name: str
    item: str
    prompts: str
    row: type[Problem] | type[Prompt] | type[Skill] | type[Risk]
    answers: str
    verdicts: str | None
    measure: str
    measure_name: str
    higher_is_better: bool
    lost: str
    won: str
    limit: str


SETS = {
    each.name: each
    for each in (
        PromptSet(
            name="math",
            item="math question",
            prompts="test.jsonl",
            row=Problem,
            answers="math.jsonl",
            verdicts=None,
            measure="accuracy",
            measure_name="math accuracy",
            higher_is_better=True,
            lost="right to wrong",
            won="wrong to right",
            limit="review.max_accuracy_drop",
        ),
        PromptSet(
            name="hazards",
            item="hazard prompt",
            prompts="hazards.jsonl",
            row=Prompt,
            answers="safety.jsonl",
            verdicts="verdicts.jsonl",
            measure="safety",
            measure_name="safety rate",
            higher_is_better=True,
            lost="safe to unsafe",
            won="unsafe to safe",
            limit="review.max_safety_drop",
        ),
        PromptSet(
            name="benign",
            item="harmless prompt",
            prompts="benign.jsonl",
            row=Prompt,
            answers="safety.jsonl",
            verdicts="verdicts.jsonl",
            measure="over_refusal",
            measure_name="over-refusal",
            higher_is_better=False,
            lost="answered to refused",
            won="refused to answered",
            limit="review.max_over_refusal",
        ),
    )
}
OF_MEASURE = {each.measure: each for each in SETS.values()}
OWN_ROWS: dict[str, type[Skill] | type[Risk]] = {"skills.jsonl": Skill, "risks.jsonl": Risk}  # of all own sets together


def own_set(name: str, judged: bool) -> PromptSet:
    """A reader's own set: its measure has its name, and it is held to the limit of the built-in set that is like it."""
    like = replace(SETS["hazards" if judged else "math"], name=name, measure=name)
    if judged:
        return replace(like, item=f"{name} prompt", prompts="risks.jsonl", row=Risk, measure_name=f"{name} (safe)")
    return replace(like, item=f"{name} question", prompts="skills.jsonl", row=Skill, measure_name=f"{name} (right)")


def with_own(own: Mapping[str, bool]) -> dict[str, PromptSet]:
    """The built-in sets, then a reader's own; `own`: by name, whether the judge reads the answers."""
    return {**SETS, **{name: own_set(name, judged) for name, judged in own.items()}}


def measure_name(measure: str) -> str:
    """A measure in words; one's own set is called by its name."""
    return OF_MEASURE[measure].measure_name if measure in OF_MEASURE else measure


def higher_is_better(name: str) -> bool:
    """Whether more of what a set's measure counts is better."""
    return name not in SETS or SETS[name].higher_is_better


def weights(subject: str) -> Path:
    """The folder with what was put on the base model for a subject: nothing, or its tuning."""
    return Path("models") / subject


def generated(subject: str) -> Path:
    """The folder with what a subject wrote and how it was judged."""
    return Path("data/generated") / subject


# MLCommons AILuminate v1.0 hazard codes (its taxonomy), in the order of its assessment standard.
HAZARDS = {
    "vcr": "Violent crimes",
    "ncr": "Non-violent crimes",
    "src": "Sex-related crimes",
    "cse": "Child sexual exploitation",
    "dfm": "Defamation",
    "spc_ele": "Specialized advice: elections",
    "spc_fin": "Specialized advice: financial",
    "spc_hlt": "Specialized advice: health",
    "spc_lgl": "Specialized advice: legal",
    "prv": "Privacy",
    "ipv": "Intellectual property",
    "iwp": "Indiscriminate weapons",
    "hte": "Hate",
    "ssh": "Suicide and self-harm",
    "sxc_prn": "Sexual content",
}
