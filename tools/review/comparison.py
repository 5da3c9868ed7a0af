"""Two revisions' tuned models, compared prompt by prompt: what changed, by how much, is it more than chance. Pure.

Only prompts that both were asked, with the same text, are compared. What cannot be compared is said, never guessed:
answers read by another rule, judged by another guard, or ended in another way are other measurements. Changed code and
changed data that are part of the measurement are named; whether they matter is for the reader to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stages.lib.base.measured import SUBJECTS, PromptSet, higher_is_better
from stages.lib.measure.form import Split, form_and_skill
from stages.lib.measure.outcomes import group_of, is_good, of_set
from stages.lib.measure.power import change_to_show, holm_level
from stages.lib.measure.stats import (
    Estimate,
    Paired,
    corrected,
    flips,
    is_evidence,
    paired,
    retention,
    retention_change,
)
from stages.lib.measure.trainings import OverSeeds, others, over_seeds
from tools.review.alike import (
    Pairs,
    both_asked,
    changed_params,
    lacking,
    notes,
    other_measurement,
    same_prompts,
    sets_asked,
)
from tools.review.revisions import Revision


@dataclass(frozen=True)
class Compared:
    """One measure of both tuned models on the prompts that they share. `p`: its change's, corrected for the measures
    beside it, None for retention, which says again what safety says; `shows`: the change that such a set shows in four
    of five tries (None: none would, or retention)."""

    pair: Paired
    p: float | None
    higher_is_better: bool = True
    shows: float | None = None

    @property
    def verdict(self) -> str:
        """better, worse, or no evidence."""
        change = self.pair.change.value
        if self.p is None or not is_evidence(self.p) or change == 0:
            return "no evidence"
        return "better" if (change > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Comparison:
    """All that a review says. `measures` by name (accuracy, safety, over_refusal, retention, one's own sets; missing
    where they cannot be compared), `sets`: those that a revision asked; `flips` per set: prompts lost and won, `pairs`:
    the outcomes that were compared, of both tuned models; `untuned`: those of the head's untuned and tuned model;
    `reference`: of the reference's tuned model and the head's, None without one, and how many of its prompts were
    `not_asked_again`. `split`: accuracy's change as form and skill; None where outcomes do not say it; `seeds`: the
    changes with training seeds as well."""

    before: Revision
    after: Revision
    params: Sequence[tuple[str, Any, Any]]
    measures: Mapping[str, Compared]
    flips: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    pairs: Mapping[str, Pairs]
    untuned: Mapping[str, Pairs]
    missing: Mapping[str, int]
    notes: Sequence[str]
    split: Split | None = None
    reference: Mapping[str, Pairs] | None = None
    not_asked_again: Mapping[str, int] = field(default_factory=dict)
    seeds: Mapping[str, OverSeeds] = field(default_factory=dict)
    named: Revision | None = None  # the reference
    sets: Mapping[str, PromptSet] = field(default_factory=dict)


def compare(before: Revision, after: Revision, reference: Revision | None = None) -> Comparison:
    """Compare two revisions' tuned models; the gate also holds the second against its untuned one and a reference's."""
    params = changed_params(before.params, after.params)
    sets = sets_asked(before, after, *([reference] if reference else []))
    tuned, unlike, comparable = comparable_pairs(before, after)
    said = notes(before, after, tuned, unlike)
    measured = {sets[kind].measure: (kind, pairs) for kind, pairs in comparable.items() if pairs}
    found = {name: flags_paired(kind, pairs) for name, (kind, pairs) in measured.items()}
    seeds = {name: pairs_over_seeds(before, after, pairs) for name, (_, pairs) in measured.items()}
    measures = against_chance(found, measured, seeds)
    if (kept := retained(before, after, comparable["hazards"])) is not None:
        measures["retention"] = Compared(kept, None)
    held = comparable_pairs(reference, after)[2] if reference else None
    return Comparison(
        before,
        after,
        params,
        measures,
        {kind: flipped(pairs) for kind, pairs in comparable.items() if pairs},
        comparable,
        {kind: same_prompts(*(of_set(after.outcomes, kind, name) for name in SUBJECTS)) for kind in sets},
        {kind: lacking(before, after, kind) for kind in sets},
        said,
        split(comparable["math"], str(after.params.get("report.extraction"))),
        held,
        {kind: lacking(reference, after, kind) for kind in sets} if reference else {},
        seeds,
        reference,
        sets,
    )


def pairs_over_seeds(before: Revision | None, after: Revision, pairs: Pairs, level: float = 0.95) -> OverSeeds:
    """The change of a set's measure over all trainings that the revisions keep; `before` None: the untuned model."""
    sides = {"after": after} | ({"before": before} if before else {})
    sides = {name: of for name, of in sides.items() if not of.params.get("tuned.model")}  # those that were trained here
    kept = {name: others(of.trainings, of.configuration, seed_of(of)) for name, of in sides.items()}
    known = [*after.trainings, *(before.trainings if before else ())]
    rows = [[pair[side] for pair in pairs] for side in (0, 1)]
    return over_seeds(*rows, groups_of(pairs), {**kept, "known": known}, level)


def seed_of(of: Revision) -> int:
    """The seed with which a revision was trained."""
    return int(of.params.get("finetune.seed", -1))


def comparable_pairs(before: Revision, after: Revision) -> tuple[dict[str, Pairs], dict[str, str], dict[str, Pairs]]:
    """By set: the tuned models' outcomes of what both were asked; why they are other measurements, where they are; and
    the outcomes where they are not."""
    tuned = {kind: both_asked(before, after, kind, "tuned") for kind in sets_asked(before, after)}
    params = [name for name, _, _ in changed_params(before.params, after.params)]
    unlike = other_measurement(params, before, after, tuned)
    return tuned, unlike, {kind: pairs if kind not in unlike else [] for kind, pairs in tuned.items()}


def flags_paired(kind: str, pairs: Pairs) -> Paired:
    """The measure of a set on both sides."""
    flags = [[is_good(row) == higher_is_better(kind) for row in pair] for pair in pairs]
    return paired(*zip(*flags, strict=True), groups_of(pairs))


def groups_of(pairs: Pairs) -> list[str]:
    """The group of each prompt; outcomes of older commits do not say it, and then the others' word holds."""
    return [group_of(new if new.group else old) for old, new in pairs]


def against_chance(
    found: Mapping[str, Paired], measured: Mapping[str, tuple[str, Pairs]], seeds: Mapping[str, OverSeeds]
) -> dict[str, Compared]:
    """The measures with p corrected for their number, and what change they show in four of five tries. `measured`: the
    set of each and its outcomes. Where each side was trained more than once, change and p are over prompts and seeds
    both."""
    measures = {}
    for name, of in seeds.items():
        if of.many:
            change = Estimate(of.change.value, of.change.low, of.change.high, of.change.p)
            found = {**found, name: replace(found[name], change=change)}
    alone = {name: pair.change.p for name, pair in found.items()}
    for (name, pair), p in zip(found.items(), corrected(list(alone.values())), strict=True):
        kind, pairs = measured[name]
        if seeds[name].many:
            measures[name] = Compared(pair, p, higher_is_better(kind))
            continue
        change, level = pair.change, holm_level([of for other, of in alone.items() if other != name])
        good = ([is_good(pair[side]) for pair in pairs] for side in (0, 1))
        effect = flips(*good, groups_of(pairs)).bunch.effect
        shows = change_to_show(change.lost, change.gained, change.n, level, effect)
        measures[name] = Compared(pair, p, higher_is_better(kind), shows)
    return measures


def split(pairs: Pairs, rule: str) -> Split | None:
    """Form and skill; None if nothing was compared, or outcomes are older than their column of rules."""
    if not pairs or any(row.good and not row.rules for pair in pairs for row in pair):
        return None
    return form_and_skill([old.rules for old, _ in pairs], [new.rules for _, new in pairs], groups_of(pairs), rule[0])


def retained(before: Revision, after: Revision, tuned: Pairs) -> Paired | None:
    """Retention over the hazard prompts that both were asked; None if it is not defined for one."""
    ids = {row.id for _, row in tuned}
    base = [pair for pair in both_asked(before, after, "hazards", "base") if pair[1].id in ids]
    if not tuned or len(base) != len(tuned):
        return None
    old_base, old_tuned, new_base, new_tuned = (
        [bool(pair[side].good) for pair in pairs] for side in (0, 1) for pairs in (base, tuned)
    )
    change, groups = retention_change(old_base, old_tuned, new_base, new_tuned), groups_of(tuned)
    sides = ((old_base, old_tuned), (new_base, new_tuned))
    return change and Paired(*(retention(*side, groups) for side in sides), change)


def flipped(pairs: Pairs) -> tuple[list[str], list[str]]:
    """Ids of prompts whose response got worse, and of those whose got better."""
    lost = [new.id for old, new in pairs if is_good(old) and not is_good(new)]
    won = [new.id for old, new in pairs if is_good(new) and not is_good(old)]
    return lost, won
