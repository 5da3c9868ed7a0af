"""report: what the stages before it wrote → metrics/ (headline, detail, outcomes, cost) and report/ (Markdown, PNG).

    python -m stages.report

Takes a few seconds and loads no model.
"""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tabulate import tabulate

from stages.lib.cli import SUBJECTS, no_arguments, run
from stages.lib.cost import cost
from stages.lib.errors import BadInput
from stages.lib.metrics import Measured, Subject, detail, headline, outcomes
from stages.lib.params import Params, dump_yaml, load_params
from stages.lib.published import Study, load_study, matching_runs
from stages.lib.records import Answer, Problem, Prompt, Verdict, read_jsonl, read_text, rounded, write_json, write_text
from stages.lib.sources import HAZARDS

PREPARED, GENERATED = Path("data/prepared"), Path("data/generated")
METRICS, REPORT = Path("metrics"), Path("report")


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    start = time.perf_counter()
    study = load_study()
    measured = read_measured(params)
    head, more = headline(measured), detail(measured)

    write_json(METRICS / "headline.json", rounded(head))
    write_json(METRICS / "detail.json", rounded(more))
    write_csv(METRICS / "outcomes.csv", outcomes(measured))

    from stages.lib import charts

    charts.save_png(charts.plane(head, study.runs, study.baselines["strong"]), REPORT / "plane.png")
    charts.save_png(charts.hazards(more["hazards"], HAZARDS), REPORT / "hazards.png")
    charts.save_png(charts.loss(METRICS / "loss.csv"), REPORT / "loss.png")
    costs = [json.loads(read_text(path)) for path in sorted(Path("data/costs").glob("*.json"))]
    costs.append(cost("report", time.perf_counter() - start, sum(head["n"].values()), None))
    write_json(METRICS / "cost.json", costs)
    write_text(REPORT / "report.md", render(params, study, head, more, costs))
    print(f"report: {answer(head)} See report/report.md.")


def read_measured(params: Params) -> Measured:
    """Prompts and both subjects' answers, matched by id. Raises BadInput if a file misses a prompt."""
    problems = read_jsonl(PREPARED / "test.jsonl", Problem)
    hazards = read_jsonl(PREPARED / "hazards.jsonl", Prompt)
    benign = read_jsonl(PREPARED / "benign.jsonl", Prompt)
    subjects = {}
    for name in SUBJECTS:
        folder = GENERATED / name
        math = by_id(folder / "math.jsonl", Answer)
        responses = by_id(folder / "safety.jsonl", Answer)
        verdicts = by_id(folder / "verdicts.jsonl", Verdict)
        subjects[name] = Subject(
            math=in_order(folder / "math.jsonl", math, problems),
            hazards=in_order(folder / "safety.jsonl", responses, hazards),
            benign=in_order(folder / "safety.jsonl", responses, benign),
            verdicts=in_order(folder / "verdicts.jsonl", verdicts, hazards),
            refusals=[verdict.refusal for verdict in in_order(folder / "verdicts.jsonl", verdicts, benign)],
        )
    rule, controversial = params.report.extraction, params.judge.controversial
    return Measured(problems, hazards, benign, subjects["base"], subjects["tuned"], rule, controversial)


def by_id(path: Path, model: type) -> dict[str, Any]:
    return {row.id: row for row in read_jsonl(path, model)}


def in_order(path: Path, rows: Mapping[str, Any], prompts: Sequence[Any]) -> list[Any]:
    missing = [prompt.id for prompt in prompts if prompt.id not in rows]
    if missing:
        raise BadInput(f"{path}: no row for prompt {missing[0]!r} ({len(missing)} missing); run its stage again")
    return [rows[prompt.id] for prompt in prompts]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def render(params: Params, study: Study, head: Mapping, more: Mapping, costs: Sequence[Mapping]) -> str:
    """report.md. It holds numbers and parameters only, no text that a model wrote."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown; names of models and hazards come from params.yaml and the code
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(pct=pct, points=points, pvalue=pvalue)
    kept = more["retention"][0] if more["retention"] else None
    model = f", {params.judge.model}" if params.judge.model else ""
    rule_judges = params.judge.protocol == "refusal_rule"
    return environment.get_template("report.md.j2").render(
        params=params,
        sentence=answer(head),
        accuracy=head["accuracy"],
        safety=head["safety"],
        over=more["over_refusal"][0],
        n=head["n"],
        kept=f"{kept['value']:.1%} (95 % interval {kept['low']:.1%} to {kept['high']:.1%}, n={kept['n']})"
        if kept
        else "not defined, no prompt was answered safely before",
        judge=f"{params.judge.protocol}{model}",
        published=published_tables(params, study, head),
        extraction=compared(more["extraction"], "rule"),
        hazards=compared([{**row, "hazard": HAZARDS[row["hazard"]]} for row in more["hazards"]], "hazard"),
        personas=compared(more["personas"], "persona"),
        verdict_note="The judge is the refusal rule itself here, so the two agree by definition."
        if rule_judges
        else "",
        verdicts=pd.DataFrame(more["refusal_by_verdict"]).to_markdown(index=False),
        problems=pd.DataFrame(more["problems"]).to_markdown(index=False, floatfmt=".3f"),
        cost=tabulate(costs, headers="keys", tablefmt="pipe", missingval=""),
        yaml=dump_yaml(params.model_dump()),
    )


def answer(head: Mapping[str, Any]) -> str:
    """The result in words: what happened to accuracy and to safety, and whether that is more than noise."""

    def said(name: str, numbers: Mapping[str, float]) -> str:
        moved = f"{pct(numbers['base'])} to {pct(numbers['tuned'])}"
        p = pvalue(numbers["p"])
        p = f"p {p}" if p.startswith("<") else f"p = {p}"
        if numbers["p"] >= 0.05:
            return f"{name} went from {moved} (no evidence of a change, {p})"
        verb = "rose" if numbers["change"] > 0 else "fell"
        return f"{name} {verb} from {moved} ({p})"

    return f"{said('Math accuracy', head['accuracy'])}; {said('safety', head['safety'])}."


def published_tables(params: Params, study: Study, head: Mapping[str, Any]) -> list[dict[str, str]]:
    """For each profile in which this is one of the ten runs: its name, and measured beside published."""
    tables = []
    for profile, runs in matching_runs(params, study).items():
        if not runs:
            continue
        rows = [
            {"": f"published, {run.name}", "accuracy": pct(run.accuracy), "safety": pct(run.safety)} for run in runs
        ]
        rows.append(
            {"": "measured here", "accuracy": pct(head["accuracy"]["tuned"]), "safety": pct(head["safety"]["tuned"])}
        )
        rows.append(
            {
                "": "measured before tuning",
                "accuracy": pct(head["accuracy"]["base"]),
                "safety": pct(head["safety"]["base"]),
            }
        )
        intro = f"These parameters are {' and '.join(run.name for run in runs)} of the paper in the {profile} profile."
        if profile != "paper":
            intro += " The model, data and judge are not the paper's, so only the direction can be compared."
        tables.append({"intro": intro, "table": pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)})
    return tables


def compared(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """A Markdown table of base against tuned with intervals, one line per group."""
    table = [
        {
            key: row[key],
            "n": row["n"],
            "base": interval(row, "base"),
            "tuned": interval(row, "tuned"),
            "change": f"{points(row['change'])} ({points(row['change_low'])} to {points(row['change_high'])})",
            "p": pvalue(row["p"]),
            "lost": row["lost"],
            "gained": row["gained"],
        }
        for row in rows
    ]
    return pd.DataFrame(table).to_markdown(index=False, disable_numparse=True)


def interval(row: Mapping[str, float], name: str) -> str:
    return f"{pct(row[name])} ({pct(row[f'{name}_low'])} to {pct(row[f'{name}_high'])})"


def pct(value: float) -> str:
    return f"{value:.1%}"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def pvalue(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


if __name__ == "__main__":
    run(main)
