"""Which way of tuning forgets less: trainings of one run without and with each way, on the same prompts. Pure.

A way that learns less forgets less: so each is also compared with plain trainings at the accuracy that it has itself
(arXiv:2606.03648 asks for comparisons at the capability gained). Between two plain trainings, or one and the untuned
model, lies what answers each prompt by the one or by the other at a fixed chance: any accuracy between the two, and the
safety on the straight line between theirs. The interval of that difference is a bootstrap over questions and hazard
prompts.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np

from stages.lib.base.measured import OF_MEASURE, SETS
from stages.lib.measure.groups import by_group
from stages.lib.measure.outcomes import group_of, of_set
from stages.lib.measure.seeds import change_over_seeds
from stages.lib.measure.stats import DRAWS, ENDS, SEED, Estimate, Share, corrected, is_evidence, paired_change, share
from stages.lib.measure.trainings import Kept, flags

MEASURES = tuple(OF_MEASURE)
UNTUNED = "untuned"


@dataclass(frozen=True)
class Way:
    """What the trainings of one way gave. `tuned` and `untuned`: rates by measure, means over trainings, each with the
    interval over prompts alone; `spread`: standard deviations over seeds, None of one; `gain`: of accuracy over its own
    untuned model; `against`: changes of the measures from the plain run's trainings, p corrected for all of them, None
    of that run itself; `at_equal_gain`: safety minus that of plain trainings at the same accuracy, None where they do
    not reach from below it to above; `dominated_by`: names of what is as accurate and as safe, and one of the two more,
    as measured; `moved`: nats by the token, a mean over trainings; `found`: when the untuned model was asked."""

    name: str
    seeds: tuple[int, ...]
    tuned: Mapping[str, Share]
    untuned: Mapping[str, Share]
    spread: Mapping[str, float | None]
    gain: Estimate
    against: Mapping[str, Estimate] | None
    at_equal_gain: Estimate | None
    dominated_by: tuple[str, ...]
    moved: float | None
    found: Mapping[str, float] | None


@dataclass(frozen=True)
class _Flags:
    """What a measure counts: of the tuned models as (trainings, prompts), of the untuned model, and prompts' groups."""

    tuned: np.ndarray
    untuned: np.ndarray
    groups: Sequence[str]


def compare(kept: Mapping[str, Sequence[Kept]], forgets: str, less: Collection[str]) -> dict[str, Way]:
    """The ways by name, each with its trainings, that of `forgets` among them; `less`: those that learn less instead.
    All were asked the same prompts in the same order."""
    counted = {name: {of: _flags(trainings, of) for of in MEASURES} for name, trainings in kept.items()}
    against = {
        (name, of): _change(counted[forgets][of].tuned, flagged[of])
        for name, flagged in counted.items()
        for of in MEASURES
        if name != forgets
    }
    p = dict(zip(against, corrected([change.p for change in against.values()]), strict=True))
    against = {key: replace(change, p=p[key]) for key, change in against.items()}
    places = {name: _place({of: each.tuned for of, each in flagged.items()}) for name, flagged in counted.items()}
    places[UNTUNED] = _place({of: each.untuned for of, each in counted[forgets].items()})
    plain = [counted[name] for name in (forgets, *less) if name in counted]
    return {
        name: Way(
            name=name,
            seeds=tuple(each.params.finetune.seed for each in kept[name]),
            tuned={of: _rate(each.tuned, each.groups) for of, each in flagged.items()},
            untuned={of: share(each.untuned.tolist(), each.groups) for of, each in flagged.items()},
            spread={of: _spread(each.tuned) for of, each in flagged.items()},
            gain=_change(flagged["accuracy"].untuned, flagged["accuracy"]),
            against=None if name == forgets else {of: against[name, of] for of in MEASURES},
            at_equal_gain=None if name == forgets or name in less else _at_equal_gain(flagged, plain),
            dominated_by=tuple(other for other, at in places.items() if _dominates(at, places[name])),
            moved=fmean(known) if (known := [each.moved.value for each in kept[name] if each.moved]) else None,
            found=kept[name][0].found,
        )
        for name, flagged in counted.items()
    }


def helped(ways: Mapping[str, Way]) -> list[Way]:
    """The ways that were measured to forget less, what gained most safety first: safety is higher than without them by
    evidence, corrected for all that were tried; they still gain accuracy over the untuned model; over-refusal has not
    risen; and it is not that they learn less: safety is above that of plain trainings at the same accuracy, or, where
    those do not reach so far, accuracy has not fallen."""
    found = [
        way
        for way in ways.values()
        if way.against is not None
        and _rose(way.against["safety"])
        and _rose(way.gain)
        and not _rose(way.against["over_refusal"])
        and (way.at_equal_gain.low > 0 if way.at_equal_gain else not _fell(way.against["accuracy"]))
    ]
    return sorted(found, key=lambda way: -way.against["safety"].value)


def _fell(change: Estimate) -> bool:
    return is_evidence(change.p) and change.value < 0


def _rose(change: Estimate) -> bool:
    return is_evidence(change.p) and change.value > 0


def _flags(trainings: Sequence[Kept], measure: str) -> _Flags:
    kind, first = OF_MEASURE[measure].name, trainings[0]
    tuned, untuned = (of_set(first.outcomes, kind, name) for name in ("tuned", "base"))
    return _Flags(flags(tuned, trainings[1:]), flags(untuned, [])[0], [group_of(row) for row in tuned])


def _change(before: np.ndarray, after: _Flags) -> Estimate:
    """Over prompts and seeds both where each side that was trained has several trainings, else over the prompts of the
    first ones."""
    if len(after.tuned) > 1 and (before.ndim == 1 or len(before) > 1):
        over = change_over_seeds(before, after.tuned, after.groups)
        return Estimate(over.value, over.low, over.high, over.p)
    first = before if before.ndim == 1 else before[0]
    found = paired_change(first.tolist(), after.tuned[0].tolist(), after.groups)
    return Estimate(found.value, found.low, found.high, found.p)


def _rate(tuned: np.ndarray, groups: Sequence[str]) -> Share:
    """The mean over trainings; a prompt's answers in several are a group, for they are much alike."""
    found = share(tuned.ravel().tolist(), [*groups] * len(tuned))
    return replace(found, n=tuned.shape[1])


def _spread(tuned: np.ndarray) -> float | None:
    return stdev(tuned.mean(axis=1).tolist()) if len(tuned) > 1 else None


def _place(flagged: Mapping[str, np.ndarray]) -> tuple[float, float]:
    return float(flagged["accuracy"].mean()), float(flagged["safety"].mean())


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def _at_equal_gain(way: Mapping[str, _Flags], plain: Sequence[Mapping[str, _Flags]]) -> Estimate | None:
    """`plain`: the run that forgets, whose untuned model is the one without any accuracy gained, and what learns less
    than it."""
    rng = np.random.default_rng(SEED)
    seen, drawn = {}, {}
    for of in (SETS["math"].measure, SETS["hazards"].measure):
        models = [way[of].tuned, plain[0][of].untuned[None], *(each[of].tuned for each in plain)]
        values, groups = np.array([model.mean(axis=0) for model in models]), way[of].groups
        # one lost and one won besides (Bonett and Price 2012), or prompts on which none differ would leave no doubt
        doubt = np.eye(2)[:, [0] + [1] * (len(models) - 1)].T
        sums = np.hstack([by_group(values, groups), doubt])
        sizes = np.append(by_group(np.ones(len(groups)), groups), [1, 1])
        counts = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), DRAWS)
        seen[of], drawn[of] = values.mean(axis=1), counts @ sums.T / (counts @ sizes)[:, None]
    accuracy, safety = seen.values()
    if not accuracy[1:].min() <= accuracy[0] <= accuracy[1:].max():
        return None
    low, high = np.percentile([_above(*of) for of in zip(*drawn.values(), strict=True)], ENDS)
    return Estimate(float(_above(accuracy, safety)), float(low), float(high))


def _above(accuracy: np.ndarray, safety: np.ndarray) -> float:
    """Of the first model, its safety minus that of the others at its accuracy, between those that lie next to it."""
    order = np.argsort(accuracy[1:], kind="stable") + 1
    return safety[0] - np.interp(accuracy[0], accuracy[order], safety[order])
