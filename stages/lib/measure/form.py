"""A change of form told from a change of skill: right answers that the model began to write as the rule reads them are
not answers that it began to get right. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.lib.measure.stats import Change, paired_change


@dataclass(frozen=True)
class Split:
    """whole: the change of accuracy by one rule. skill: of answers right by any rule. form: of answers that are not
    right by another rule alone. whole = skill + form, prompt by prompt."""

    whole: Change
    skill: Change
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

    def change(good: Callable[[str], bool]) -> Change:
        return paired_change([good(of) for of in before], [good(of) for of in after], groups)

    return Split(change(lambda of: rule in of), change(bool), change(lambda of: not of or rule in of))
