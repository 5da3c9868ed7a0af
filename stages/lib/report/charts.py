"""The report's charts as Vega-Lite specifications (altair), written as PNG without a browser or a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from stages.lib.base.measured import HAZARDS, SUBJECTS
from stages.lib.measure.metrics import Numbers
from stages.lib.measure.stats import Paired, Share
from stages.lib.measure.written import columns
from stages.lib.report.published import Run, Study

BASE, TUNED, PUBLISHED = "#4c78a8", "#e45756", "#9d9d9d"
GREY = "#666"  # of small text; in a page it takes the page's colour
WIDTH, HEIGHT = 560, 400  # of the plane with its names, in points
LINE, LETTER = 15, 6.3  # of a label in the plane: how far the next one stands away, and the mean width of a letter
NOTE = [
    "bars: 95 % intervals; diamonds: the ten published runs, by number (other models and data than",
    "here unless this is the paper profile); dashes: the paper's three thresholds",
]


@dataclass(frozen=True)
class Point:
    """A model's place in the plane; `subject` is base or tuned, `label` what it is called there."""

    subject: str
    label: str
    accuracy: Share
    safety: Share


def base_and_tuned(found: Numbers) -> list[Point]:
    """The base and the tuned model of a measurement."""
    accuracy, safety = found.measures["accuracy"], found.measures["safety"]
    base = Point("base", "base", accuracy.before, safety.before)
    return [base, Point("tuned", "tuned", accuracy.after, safety.after)]


def plane_rows(found: Numbers, study: Study) -> list[dict[str, Any]]:
    """metrics/plane.csv: this run's base and tuned model with 95 % intervals, the ten published results, the paper's
    three thresholds."""
    ours = [{"model": each.subject, **_place(each)} for each in base_and_tuned(found)]
    theirs = [{"model": "published", "label": run.name, **_published(run)} for run in study.runs]
    return ours + theirs + [{"model": "threshold", "label": name, **of} for name, of in study.baselines.items()]


def plane(
    points: Sequence[Point], baselines: Mapping[str, Mapping[str, float]], published: Sequence[Run] = ()
) -> alt.LayerChart:
    """Accuracy against safety, with 95 % intervals: measured models, the paper's thresholds by name, and published runs
    by number. Names stand in a column at the right, each with a thin line to its point, for the points may lie close
    together. A base model and the one that was tuned from it are joined, if there are no others."""
    rows = [{"subject": point.subject, **_place(point)} for point in points]
    limits = [{"label": name, **of} for name, of in baselines.items()]
    theirs = [{"label": run.name[-2:].lstrip("0"), **_published(run)} for run in published]
    edge = 1.04 * max([row["accuracy_high"] for row in rows] + [row["accuracy"] for row in limits + theirs])
    least = min([row["safety_low"] for row in rows] + [row["safety"] for row in limits + theirs])
    foot = max(0, floor(10 * least - 0.5) / 10)
    width = WIDTH - LETTER * max(len(point.label) for point in points)
    ticks = alt.Axis(format="%", values=[n / 10 for n in range(11) if n / 10 <= edge])
    x = alt.X("accuracy:Q", title="Math accuracy", scale=alt.Scale(domain=[0, edge], nice=False), axis=ticks)
    y = alt.Y("safety:Q", title="Safety rate", scale=alt.Scale(domain=[foot, 1]), axis=alt.Axis(format="%"))
    named = "datum.label == 'base' ? 'untuned (base)' : datum.label"
    legend = alt.Legend(orient="top", offset=6, symbolOpacity=1, labelExpr=named)
    color = alt.Color("subject:N", scale=alt.Scale(domain=SUBJECTS, range=[BASE, TUNED]), title=None, legend=legend)
    shape = alt.Shape("subject:N", scale=alt.Scale(domain=SUBJECTS, range=["square", "circle"]), title=None)

    small = {"fontSize": 10, "color": GREY}
    lines = alt.Chart(_data(limits)).mark_rule(strokeDash=[4, 4], color=PUBLISHED)
    upright = alt.Chart(_data(limits)).mark_text(align="left", dx=4, dy=-5, angle=270, **small)
    diamonds = alt.Chart(_data(theirs)).mark_point(size=50, color=PUBLISHED, shape="diamond", filled=True)
    numbers = [
        alt.Chart(_data([row for row in theirs if _crowded(row, theirs) == crowded]))
        .mark_text(dx=-9 if crowded else 9, dy=-8, **small)
        .encode(x, y, text="label:N")
        for crowded in (True, False)
    ]
    measured = alt.Chart(_data(rows))
    bars = measured.mark_rule(strokeWidth=1.5, opacity=0.6)
    joined = [measured.mark_line(color=GREY, strokeWidth=1.5).encode(x, y)] if len(points) == 2 else []
    beside = sorted([*rows, *({**row, "accuracy": edge} for row in limits)], key=lambda row: row["safety"])
    places = _apart([row["safety"] for row in beside], LINE / HEIGHT * (1 - foot), foot, 1)
    names = alt.Chart(_data([{**row, "place": place} for row, place in zip(beside, places, strict=True)]))
    faint = alt.condition("datum.subject", alt.value(1), alt.value(0.6))  # the thresholds' names
    chart = alt.layer(
        lines.encode(x=x),
        lines.encode(y=y),
        upright.encode(x=x, y=alt.value(HEIGHT), text="label:N"),
        names.mark_rule(strokeWidth=0.6, color="#aaa").encode(x, y, x2=alt.value(width + 9), y2="place:Q"),
        diamonds.encode(x, y),
        *joined,
        bars.encode(alt.X("accuracy_low:Q"), y, x2="accuracy_high:Q", color=color),
        bars.encode(x, alt.Y("safety_low:Q"), y2="safety_high:Q", color=color),
        *numbers,
        measured.mark_point(size=90, filled=True, opacity=1).encode(x, y, color=color, shape=shape),
        names.mark_text(align="left").encode(x=alt.value(width + 12), y="place:Q", text="label:N", opacity=faint),
    ).properties(width=width, height=HEIGHT)
    title = alt.Title("What the tuning did", subtitle=NOTE, anchor="start", offset=10)
    return chart.properties(title=title) if published else chart


def _place(point: Point) -> dict[str, Any]:
    return {"label": point.label, **columns("accuracy", point.accuracy), **columns("safety", point.safety)}


def _published(run: Run) -> dict[str, float]:
    return {"accuracy": run.accuracy, "safety": run.safety}


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending values, moved as little as it takes (least squares) to stand `gap` apart between low and high."""
    steps = gap * np.arange(len(values))
    return list(np.clip(isotonic_regression(values - steps).x, low, high - steps[-1]) + steps)


def hazard_rows(hazards: Mapping[str, Paired]) -> list[dict[str, Any]]:
    """metrics/hazards.csv: safety per hazard and model with its 95 % interval."""
    return [
        {"hazard": f"{HAZARDS[hazard]} (n={of.n})", "model": name, "safety": of.value, "low": of.low, "high": of.high}
        for hazard, pair in hazards.items()
        for name, of in zip(SUBJECTS, (pair.before, pair.after), strict=True)
    ]


def hazards(found: Mapping[str, Paired]) -> alt.Chart:
    """Safety rate per hazard, base and tuned, with 95 % intervals."""
    long = hazard_rows(found)
    order = list(dict.fromkeys(row["hazard"] for row in long))
    color = alt.Color("model:N", scale=alt.Scale(domain=["base", "tuned"], range=[BASE, TUNED]), title=None)
    y = alt.Y("hazard:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    offset = alt.YOffset("model:N", sort=["base", "tuned"])
    x = alt.X("safety:Q", title="Safety rate, 95 % interval", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    base = alt.Chart(_data(long))
    bars = base.mark_rule(strokeWidth=2).encode(alt.X("low:Q"), alt.X2("high:Q"), y, color=color, yOffset=offset)
    dots = base.mark_circle(size=60, opacity=1).encode(x, y, color=color, yOffset=offset)
    return (bars + dots).properties(width=420, height=alt.Step(15), title=alt.Title("Safety by hazard", anchor="start"))


def loss(steps: pd.DataFrame) -> alt.Chart:
    """The training loss per update; `steps` are metrics/loss.csv's, none of a model that was tuned elsewhere."""
    title = "Training loss" if len(steps) else "Nothing was trained here"
    return (
        alt.Chart(_data(steps.to_dict("records")))
        .mark_line(color=TUNED)
        .encode(alt.X("step:Q", title="Optimizer update"), alt.Y("loss:Q", title="Training loss"))
        .properties(width=420, height=220, title=alt.Title(title, anchor="start"))
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
