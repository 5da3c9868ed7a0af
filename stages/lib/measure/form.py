"""A change of form told from a change of skill: right answers that the model began to write as the rule reads them are
not answers that it began to get right. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.lib.measure.stats import Change, Paired, paired, paired_change


@dataclass(frozen=True)
class Split:
    """whole: accuracy by one rule. skill: answers right by any rule. form: the change of answers that are not right by
    another rule alone. The changes add up, prompt by prompt: whole = skill + form."""

    whole: Paired
    skill: Paired
    form: Change


def form_and_skill(
    before: Sequence[str], after: Sequence[str], groups: Sequence[str] | None = None, rule: str = "s"
) -> Split:
    """Split the change of a rule's accuracy. `before` and `after` are the `rules` of metrics/outcomes.csv, the initials
    of the rules that read the right number (s strict, f flexible, p published).

    Right by the rule = right by any - right by others alone, so the changes add up; each is a paired change of a share
    over all prompts, with interval and test (`paired_change`). A rule that takes the last number for the answer may be
    right by luck: skill counts that with the rest. Files of before have no `rules`: nothing can be split there. Raises
    ValueError on unequal or zero lengths.
    """

    def sides(good: Callable[[str], bool]) -> list[list[bool]]:
        return [[good(of) for of in side] for side in (before, after)]

    whole, skill = (paired(*sides(good), groups) for good in (lambda of: rule in of, bool))
    return Split(whole, skill, paired_change(*sides(lambda of: not of or rule in of), groups))
