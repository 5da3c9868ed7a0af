"""Which way of tuning forgets less, from the committed results of a profile.

    python -m tools.mitigations [--profile laptop]

Compares runs.yaml's mitigations with the run that they are laid over, on the same prompts: prints Markdown and draws
metrics/runs/<profile>/mitigations.png. `python -m tools.runs seeds 2 --mitigations --profile laptop` makes the results.
Changes are in points with 95 % intervals, over prompts and training seeds both where there are several trainings, else
over prompts; p is corrected for all tests of the table (Holm).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.measure.stats import Estimate
from stages.lib.measure.ways import UNTUNED, Way
from stages.lib.report.published import Study, load_study
from stages.lib.report.tried import RESULTS, Tried, command, read_tried
from stages.lib.report.wording import Table, between, changed, markdown_table, pct, pvalue

NOT_RUN = "not run yet"
MEANS = """Rates are means over trainings, with intervals over prompts; sd: standard deviation over seeds, in points.
Changes: against {forgets} without any way, in points; p corrected for all tests of the table (Holm). At equal accuracy:
safety, in points, above what plain trainings ({plain}) and the untuned model reach at the accuracy of this way
(bootstrap over prompts). Dominated by: what is as accurate and as safe, and one of the two more, by these values alone.
Moved: nats by the token from the untuned model where nothing was taught."""


def main() -> None:
    top = parser(__doc__)
    top.add_argument("--profile", default="laptop")
    profile = top.parse_args().profile
    study = load_study()
    if profile not in study.profiles:
        raise BadInput(f"no profile {profile!r}; there are {', '.join(study.profiles)}")
    tried = read_tried(study, profile)
    ways = tried.ways(study)
    print(page(study, tried, ways))
    if ways:
        print(f"\nsee {picture(study, ways, RESULTS / profile / 'mitigations.png')}")


def page(study: Study, tried: Tried, ways: Mapping[str, Way]) -> str:
    """All that is known, as Markdown."""
    if not ways:
        made = f"`python -m tools.runs seeds 2 --mitigations --profile {tried.profile}` runs them"
        return f"No mitigation can be compared in profile {tried.profile}: {study.forgets} is {NOT_RUN}. {made}."
    plain = ", ".join([study.forgets, *(way.name for way in study.ways if way.plain)])
    parts = [
        markdown_table(rates_table(study, ways)),
        markdown_table(changes_table(study, ways)),
        MEANS.format(forgets=study.forgets, plain=plain),
        markdown_table(evidence_table(study, ways)),
    ]
    if tried.left_out:
        parts.append(f"Left out, of other parameters or prompts: {', '.join(tried.left_out)}.")
    return "\n\n".join(parts)


def rates_table(study: Study, ways: Mapping[str, Way]) -> Table:
    """Accuracy, safety and over-refusal of each, its own untuned model's before them."""
    columns = {"accuracy": "math accuracy", "safety": "safety", "over_refusal": "over-refusal"}
    rows = []
    for name in names(study):
        way = ways.get(name)
        row = {"way": name, "seeds": " ".join(map(str, way.seeds)) if way else NOT_RUN}
        for of, words in columns.items():
            spread = way.spread[of] if way else None
            sd = f", sd {100 * spread:.1f}" if spread is not None else ""
            row[words] = f"{pct(way.untuned[of].value)} → {between(way.tuned[of])}{sd}" if way else "-"
        row["moved"] = f"{way.moved:.3g}" if way and way.moved is not None else "-"
        row["dominated by"] = (", ".join(way.dominated_by) or "none") if way else "-"
        rows.append(row)
    return rows


def changes_table(study: Study, ways: Mapping[str, Way]) -> Table:
    """What each changed against the run without it; with equal accuracy, where that can be had."""
    rows = []
    for name in names(study)[1:]:
        way = ways.get(name)
        row = {"way": name}
        for of, words in (("accuracy", "accuracy"), ("safety", "safety"), ("over_refusal", "over-refusal")):
            row[f"{words}, change"] = tested(way.against[of]) if way else NOT_RUN
        equal = way.at_equal_gain if way else None
        rows.append({**row, "safety at equal accuracy": changed(equal) if equal else "-"})
    return rows


def evidence_table(study: Study, ways: Mapping[str, Way]) -> Table:
    """What each sets, and what was found when the untuned model was asked (models/tuned/training.json)."""
    settings = {way.name: command(way.overrides) for way in study.ways}
    return [
        {"way": name, "settings": f"`{settings[name]}`", "found": found(ways[name]) if name in ways else NOT_RUN}
        for name in names(study)[1:]
    ]


def found(way: Way) -> str:
    """`masked share 0.31, rows without loss 0`."""
    if way.found is None:
        return "not kept"
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in way.found.items()) or "-"


def tested(change: Estimate) -> str:
    """`+12.5 (+4.0 to +20.9), p 0.012`."""
    return f"{changed(change)}, p {pvalue(change.p)}"


def names(study: Study) -> Sequence[str]:
    """The run that forgets, what learns less, the ways."""
    return [study.forgets, *(way.name for way in study.ways)]


def picture(study: Study, ways: Mapping[str, Way], path: Path) -> Path:
    """Accuracy against safety: the untuned model, and each way by name."""
    from stages.lib.report import charts

    first = ways[study.forgets].untuned
    points = [charts.Point("base", UNTUNED, first["accuracy"], first["safety"])]
    points += [charts.Point("tuned", name, way.tuned["accuracy"], way.tuned["safety"]) for name, way in ways.items()]
    charts.save_png(charts.plane(points, study.baselines), path)
    return path


if __name__ == "__main__":
    run(main)
