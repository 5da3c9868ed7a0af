"""The same configuration trained with other seeds: what is kept of them, and the change with prompts and seeds both.
Pure: text in, values out.

`python -m tools.runs seeds N` keeps a result of each in metrics/runs/default/: NAME.json has its parameters, NAME.csv
its outcomes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.base.errors import BadInput
from stages.lib.base.measured import higher_is_better
from stages.lib.base.params import Params, parse_params
from stages.lib.measure.moved import Mean
from stages.lib.measure.outcomes import Outcome, from_csv, is_good
from stages.lib.measure.seeds import SeedChange, Spread, change_over_seeds

KEPT = Path("metrics/runs/default")


@dataclass(frozen=True)
class Training:
    """One kept training: its seed, its configuration as `configuration` has it, its outcomes."""

    seed: int
    configuration: str
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class Kept:
    """A kept result: its parameters and outcomes; how far the model has moved, and what was found when the untuned
    model was asked, by name: None where the file does not say it."""

    params: Params
    outcomes: Sequence[Outcome]
    moved: Mean | None
    found: Mapping[str, float] | None


@dataclass(frozen=True)
class OverSeeds:
    """The change of a measure over the trainings at hand. before, after: how many there are of either side, 0 of the
    untuned model."""

    change: SeedChange
    before: int
    after: int

    @property
    def many(self) -> bool:
        """Whether each side that was trained was trained more than once."""
        return 1 not in (self.before, self.after)


def configuration(params: Params) -> str:
    """All parameters that decide a result but for the training's seed; the same where two runs are the same but for
    it."""
    values = params.model_dump(exclude={"review": True, "machine": True, "finetune": {"seed"}})
    return json.dumps(values, sort_keys=True)


def read_kept(result: str, outcomes: str, where: str) -> Kept | None:
    """A kept result and its outcomes, as `tools.runs` writes them. None for one of other code, which knew other
    parameters. Raises BadInput if it is no result."""
    try:
        values: Any = json.loads(result)
        params, moved, found = values["params"], values.get("moved"), values.get("training")
        mean = Mean(**moved[0]) if moved else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{where}: not a kept result ({error!r}); `git checkout` brings it back") from None
    try:
        checked = parse_params(params, where)
    except BadInput:
        return None
    return Kept(checked, from_csv(outcomes, where), mean, found)


def read_training(result: str, outcomes: str, where: str) -> Training | None:
    """A kept result as one training of its configuration; None and errors as `read_kept` has them."""
    kept = read_kept(result, outcomes, where)
    return kept and Training(kept.params.finetune.seed, configuration(kept.params), kept.outcomes)


def others(kept: Sequence[Training], of: str, seed: int) -> list[Training]:
    """The trainings of a configuration with other seeds than this one."""
    return [each for each in kept if each.configuration == of and each.seed != seed]


def flags(rows: Sequence[Outcome], kept: Sequence[Training | Kept]) -> np.ndarray:
    """What the measure of a set counts, as (trainings, prompts): of these outcomes of one tuned model, and of those
    trainings that were asked all of the same prompts."""
    found = [[_flag(row) for row in rows]]
    for each in kept:
        tuned = {(row.set, row.id, row.prompt): row for row in each.outcomes if row.subject == "tuned"}
        there = [tuned.get((row.set, row.id, row.prompt)) for row in rows]
        if None not in there:
            found.append([_flag(row) for row in there])
    return np.array(found)


def spread_at_hand(rows: Sequence[Outcome], kept: Sequence[Training]) -> Spread | None:
    """The spread over seeds of the configuration of which most trainings were asked these prompts; None if there are
    not two of any."""
    found = []
    for of in dict.fromkeys(each.configuration for each in kept):
        of_seeds = flags(rows, [each for each in kept if each.configuration == of])[1:]
        if len(of_seeds) > 1:
            found.append(Spread(float(of_seeds.mean(axis=1).std(ddof=1)), len(of_seeds)))
    return max(found, key=lambda each: each.seeds, default=None)


def over_seeds(
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    groups: Sequence[str],
    kept: Mapping[str, Sequence[Training]],
    level: float = 0.95,
) -> OverSeeds:
    """The change between two models on the same prompts. `kept`: the other trainings of `before` (left out if that is
    the untuned model) and `after`, and, for a spread that a side with one training does not have, `known`."""
    trained = [
        flags(rows, kept[side]) if side in kept else None for side, rows in (("before", before), ("after", after))
    ]
    sides = [flags(rows, [])[0] if of is None else of for of, rows in zip(trained, (before, after), strict=True)]
    change = change_over_seeds(*sides, groups, spread_at_hand(after, kept.get("known", ())), level)
    return OverSeeds(change, *(0 if of is None else len(of) for of in trained))


def _flag(row: Outcome) -> bool:
    return is_good(row) == higher_is_better(row.set)
