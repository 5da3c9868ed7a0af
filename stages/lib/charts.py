"""The report's charts as Vega-Lite specifications (altair), written as PNG without a browser or a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from stages.lib.published import Run

BASE, TUNED, PUBLISHED = "#4c78a8", "#e45756", "#9d9d9d"


def plane(headline: Mapping[str, Any], runs: Sequence[Run], strong: Mapping[str, float]) -> alt.LayerChart:
    """Accuracy against safety: this run's base and tuned model, the ten published results, the strong baseline."""
    x = alt.X("accuracy:Q", title="Math accuracy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    y = alt.Y("safety:Q", title="Safety rate", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    ours = [
        {"model": name, "accuracy": headline["accuracy"][name], "safety": headline["safety"][name]}
        for name in ("base", "tuned")
    ]
    theirs = [{"run": run.name[-2:].lstrip("0"), "accuracy": run.accuracy, "safety": run.safety} for run in runs]
    published = alt.Chart(_data(theirs)).mark_point(size=50, color=PUBLISHED, shape="diamond", filled=True).encode(x, y)
    labels = alt.layer(
        *(
            alt.Chart(_data([row for row in theirs if _crowded(row, theirs) == crowded]))
            .mark_text(dx=-9 if crowded else 9, dy=-8, fontSize=10, color="#666")
            .encode(x, y, text="run:N")
            for crowded in (True, False)
        )
    )
    lines = alt.Chart(_data([strong])).mark_rule(strokeDash=[4, 4], color="#888")
    thresholds = lines.encode(x=x) + lines.encode(y=y)
    path = alt.Chart(_data(ours)).mark_line(color="#333", strokeWidth=1.5).encode(x, y, order="order:O")
    points = (
        alt.Chart(_data(ours))
        .mark_circle(size=130, opacity=1)
        .encode(
            x,
            y,
            color=alt.Color(
                "model:N", scale=alt.Scale(domain=["base", "tuned"], range=[BASE, TUNED]), title="This run"
            ),
        )
    )
    names = alt.layer(
        *(
            alt.Chart(_data([row]))
            .mark_text(dx=11, dy=dy, align="left", fontWeight="bold")
            .encode(x, y, text="model:N")
            for row, dy in zip(ours, (-11, 2), strict=True)
        )
    )
    note = [
        "diamonds: the ten published runs, by number (other models and data than here unless",
        "this is the paper profile); dashes: the paper's strong baseline",
    ]
    title = alt.Title("What the tuning did", subtitle=note, anchor="start")
    return alt.layer(thresholds, published, labels, path, points, names).properties(width=420, height=380, title=title)


def hazards(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> alt.Chart:
    """Safety rate per hazard, base and tuned, with 95 % intervals; `rows` are detail.json's hazards."""
    long = [
        {
            "hazard": f"{names[row['hazard']]} (n={row['n']})",
            "model": subject,
            "safety": row[subject],
            "low": row[f"{subject}_low"],
            "high": row[f"{subject}_high"],
        }
        for row in rows
        for subject in ("base", "tuned")
    ]
    order = [f"{names[row['hazard']]} (n={row['n']})" for row in rows]
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


def _crowded(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether another point stands close to the right, so that the label goes to the left."""
    return any(
        0 < other["accuracy"] - row["accuracy"] < 0.04 and abs(other["safety"] - row["safety"]) < 0.02 for other in rows
    )


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=[{"order": n, **row} for n, row in enumerate(rows)])
