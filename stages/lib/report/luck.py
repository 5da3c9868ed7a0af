"""Training is a draw: what trainings with other seeds say, in words. Pure."""

from collections.abc import Mapping
from typing import Any

from stages.lib.base.measured import measure_name
from stages.lib.measure.trainings import OverSeeds
from stages.lib.report.wording import Table, changed, counted, pct, pvalue

ASK = "`python -m tools.runs seeds 6` would tell"


def one_training(seeds: Mapping[str, OverSeeds]) -> str:
    """That one training says so, with what is known of the luck in it; nothing where each side has several."""
    if not seeds or all(of.many for of in seeds.values()):
        return ""
    each = "One training each says" if any(of.before for of in seeds.values()) else "One training says"
    known = [
        f"{measure_name(name)} {changed(of.change)}"
        for name, of in seeds.items()
        if not of.many and of.change.low is not None
    ]
    if not known:
        return f"{each} so: how much of it is the luck of a seed is not known here; {ASK}."
    spreads = [spread for of in seeds.values() for spread in (of.change.before, of.change.after) if spread]
    most = max(spread.seeds for spread in spreads)
    return f"{each} so. With the spread seen over {counted(most, 'training')}, in points: {', '.join(known)}."


def seeds_table(seeds: Mapping[str, OverSeeds]) -> Table:
    """The change over prompts and seeds both, where each side that was trained was trained more than once."""
    return [{"": measure_name(name), **_row(of)} for name, of in seeds.items() if of.many]


def _row(of: OverSeeds) -> dict[str, Any]:
    change = of.change
    spreads = [f"{100 * spread.sd:.1f}" for spread in (change.before, change.after) if spread]
    trained = " and ".join(str(count) for count in (of.before, of.after) if count)
    return {
        "trainings": trained,
        "change, points": changed(change),
        "p": pvalue(change.p),
        "standard deviation over seeds, points": " and ".join(spreads),
        "of the variance, training": pct(change.of_training),
    }
