"""The report's charts as Vega-Lite specifications (altair), written as PNG without a browser or a network."""

from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from stages.lib.base.measured import HAZARDS
from stages.lib.report.published import Study

BASE, TUNED, PUBLISHED = "#4c78a8", "#e45756", "#9d9d9d"
GREY = "#666"  # of small text; in a page it takes the page's colour
_ENDS = ("", "_low", "_high")


def plane_rows(detail: Mapping[str, Any], study: Study) -> list[dict[str, Any]]:
    """metrics/plane.csv: this run's base and tuned model with 95 % intervals, the ten published results, the paper's
    three thresholds."""
    accuracy = next(row for row in detail["extraction"] if row["rule"] == detail["headline_rule"])
    safety = detail["safety"][0]
    ours = [
        {
            "model": name,
            "label": name,
            **{f"accuracy{end}": accuracy[f"{name}{end}"] for end in _ENDS},
            **{f"safety{end}": safety[f"{name}{end}"] for end in _ENDS},
        }
        for name in ("base", "tuned")
    ]
    theirs = [("published", run.name, run.accuracy, run.safety) for run in study.runs]
    limits = [("threshold", name, of["accuracy"], of["safety"]) for name, of in study.baselines.items()]
    return ours + [dict(zip(("model", "label", "accuracy", "safety"), row, strict=True)) for row in theirs + limits]


def plane(rows: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Accuracy against safety: this run's base and tuned model with 95 % intervals, the ten published results by their
    number, the paper's three thresholds. `rows` are plane.csv's."""
    x = alt.X("accuracy:Q", title="Math accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    y = alt.Y("safety:Q", title="Safety rate", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    ours = [row for row in rows if row["model"] in ("base", "tuned")]
    theirs = [{**row, "run": row["label"][-2:].lstrip("0")} for row in rows if row["model"] == "published"]
    published = alt.Chart(_data(theirs)).mark_point(size=50, color=PUBLISHED, shape="diamond", filled=True).encode(x, y)
    labels = alt.layer(
        *(
            alt.Chart(_data([row for row in theirs if _crowded(row, theirs) == crowded]))
            .mark_text(dx=-9 if crowded else 9, dy=-8, fontSize=10, color=GREY)
            .encode(x, y, text="run:N")
            for crowded in (True, False)
        )
    )
    limits = alt.Chart(_data([row for row in rows if row["model"] == "threshold"]))
    lines = limits.mark_rule(strokeDash=[4, 4], color=PUBLISHED)
    named = limits.mark_text(align="left", dx=3, dy=-5, fontSize=10, color=GREY)
    upright = limits.mark_text(align="left", dx=3, dy=-5, fontSize=10, color=GREY, angle=270)
    measured = alt.Chart(_data(ours))
    color = alt.Color("model:N", scale=alt.Scale(domain=["base", "tuned"], range=[BASE, TUNED]), title="This run")
    forms = alt.Scale(domain=["base", "tuned"], range=["square", "circle"])
    shape = alt.Shape("model:N", scale=forms, title="This run")
    bars = measured.mark_rule(strokeWidth=1.5, opacity=0.7)
    names = [
        alt.Chart(_data([row])).mark_text(dx=11, dy=dy, align="left", fontWeight="bold").encode(x, y, text="label:N")
        for row, dy in zip(ours, (-11, 12), strict=True)
    ]
    note = [
        "bars: 95 % intervals; diamonds: the ten published runs, by number (other models and data than",
        "here unless this is the paper profile); dashes: the paper's three thresholds",
    ]
    return alt.layer(
        lines.encode(x=x),
        lines.encode(y=y),
        upright.encode(x=x, y=alt.value(380), text="label:N"),
        named.encode(x=alt.value(380), y=y, text="label:N"),
        published,
        labels,
        measured.mark_line(color=GREY, strokeWidth=1.5).encode(x, y, order="order:O"),
        bars.encode(alt.X("accuracy_low:Q"), y, x2="accuracy_high:Q", color=color),
        bars.encode(x, alt.Y("safety_low:Q"), y2="safety_high:Q", color=color),
        measured.mark_point(size=110, filled=True, opacity=1).encode(x, y, color=color, shape=shape),
        *names,
    ).properties(width=420, height=380, title=alt.Title("What the tuning did", subtitle=note, anchor="start"))


def runs_plane(points: Sequence[Mapping[str, Any]], baselines: Mapping[str, Mapping[str, float]]) -> alt.LayerChart:
    """The accuracy-safety plane of measured runs. `points`: model (untuned | tuned), label, accuracy and safety, each
    with _low and _high of its 95 % interval. `baselines`: the paper's thresholds by name. Labels stand in a column at
    the right, each with a thin line to its point: the points lie close together."""
    edge = max([row["accuracy_high"] for row in points] + [line["accuracy"] for line in baselines.values()])
    x = alt.X(
        "accuracy:Q",
        title="Math accuracy, 95 % interval",
        scale=alt.Scale(domain=[0, 1.45 * edge], nice=False),
        axis=alt.Axis(format="%", values=[n / 10 for n in range(11) if n / 10 <= 1.04 * edge]),
    )
    least = min([row["safety_low"] for row in points] + [line["safety"] for line in baselines.values()])
    foot = floor(10 * least) / 10
    y = alt.Y(
        "safety:Q", title="Safety rate, 95 % interval", scale=alt.Scale(domain=[foot, 1]), axis=alt.Axis(format="%")
    )
    models = ["untuned", "tuned"]
    color = alt.Color("model:N", scale=alt.Scale(domain=models, range=[BASE, TUNED]), title=None)
    shape = alt.Shape("model:N", scale=alt.Scale(domain=models, range=["square", "circle"]), title=None)
    limits = _data([{"name": name, **line} for name, line in baselines.items()])
    ruled = alt.Chart(limits).mark_rule(strokeDash=[4, 4], color="#999")
    named = alt.Chart(limits).mark_text(align="left", dx=3, dy=-6, fontSize=10, color=GREY)
    measured = alt.Chart(_data(points))
    bars = measured.mark_rule(strokeWidth=1, opacity=0.5)
    ordered = sorted(points, key=lambda row: (row["safety"], row["accuracy"]))
    places = _apart([row["safety"] for row in ordered], 0.042 * (1 - foot))
    column = [
        {
            "label": row["label"],
            "accuracy": row["accuracy"],
            "safety": row["safety"],
            "end": 1.06 * edge,
            "place": place,
        }
        for row, place in zip(ordered, places, strict=True)
    ]
    labels = alt.Chart(_data(column))
    return alt.layer(
        ruled.encode(x=x),
        ruled.encode(y=y),
        named.encode(x=x, y=alt.value(438), text="name:N"),
        named.encode(x=alt.value(0), y=y, text="name:N"),
        labels.mark_rule(strokeWidth=0.6, color="#aaa").encode(x, y, x2="end:Q", y2="place:Q"),
        bars.encode(alt.X("accuracy_low:Q"), y, x2="accuracy_high:Q", color=color),
        bars.encode(x, alt.Y("safety_low:Q"), y2="safety_high:Q", color=color),
        measured.mark_point(size=80, filled=True, opacity=1).encode(x, y, color=color, shape=shape),
        labels.mark_text(align="left", dx=3).encode(alt.X("end:Q"), alt.Y("place:Q"), text="label:N"),
    ).properties(width=600, height=440)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending values up to 1, moved as little as a pass up and a pass down need to stand `gap` apart."""
    places = list(values)
    for n in range(1, len(places)):
        places[n] = max(places[n], places[n - 1] + gap)
    for n in reversed(range(len(places))):
        places[n] = min(places[n], 1 - gap * (len(places) - 1 - n))
    return places


def hazard_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """metrics/hazards.csv: safety per hazard and model with its 95 % interval; `rows` are detail.json's hazards."""
    return [
        {
            "hazard": f"{HAZARDS[row['hazard']]} (n={row['n']})",
            "model": subject,
            "safety": row[subject],
            "low": row[f"{subject}_low"],
            "high": row[f"{subject}_high"],
        }
        for row in rows
        for subject in ("base", "tuned")
    ]


def hazards(rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """Safety rate per hazard, base and tuned, with 95 % intervals; `rows` are detail.json's hazards."""
    long = hazard_rows(rows)
    order = list(dict.fromkeys(row["hazard"] for row in long))
    color = alt.Color("model:N", scale=alt.Scale(domain=["base", "tuned"], range=[BASE, TUNED]), title=None)
    y = alt.Y("hazard:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    offset = alt.YOffset("model:N", sort=["base", "tuned"])
    x = alt.X("safety:Q", title="Safety rate, 95 % interval", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    base = alt.Chart(_data(long))
    bars = base.mark_rule(strokeWidth=2).encode(alt.X("low:Q"), alt.X2("high:Q"), y, color=color, yOffset=offset)
    dots = base.mark_circle(size=60, opacity=1).encode(x, y, color=color, yOffset=offset)
    return (bars + dots).properties(width=420, height=alt.Step(15), title=alt.Title("Safety by hazard", anchor="start"))


def loss(path: Path) -> alt.Chart:
    """The training loss per update, from metrics/loss.csv."""
    return (
        alt.Chart(_data(pd.read_csv(path).to_dict("records")))
        .mark_line(color=TUNED)
        .encode(alt.X("step:Q", title="Optimizer update"), alt.Y("loss:Q", title="Training loss"))
        .properties(width=420, height=220, title=alt.Title("Training loss", anchor="start"))
    )


def save_png(chart: Any, path: Path) -> None:
    """Write a chart as PNG at twice its size in points. The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    chart.save(part, format="png", scale_factor=2)
    part.replace(path)


def svg(chart: Any) -> str:
    """A chart as SVG to stand in a page: no background, and text and axes in the page's own colour."""
    import vl_convert

    spec = chart.to_dict()
    text = {"labelColor": "currentColor", "titleColor": "currentColor"}
    spec["background"] = "transparent"
    spec["config"] = {
        **spec.get("config", {}),
        "axis": {**text, "gridColor": "#8884", "domainColor": "#888", "tickColor": "#888"},
        "legend": text,
        "title": {"color": "currentColor", "subtitleColor": "currentColor"},
        "text": {"color": "currentColor"},
        "view": {"stroke": "#8886", "continuousWidth": 300, "continuousHeight": 300},
    }
    return vl_convert.vegalite_to_svg(spec).replace(f'"{GREY}"', '"currentColor"')


def _crowded(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another point stands close to the right, so that the label goes to the left."""
    return any(
        0 < other["accuracy"] - row["accuracy"] < 0.04 and abs(other["safety"] - row["safety"]) < 0.02 for other in rows
    )


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=[{"order": n, **row} for n, row in enumerate(rows)])
