"""report: what the stages before it wrote → metrics/ (numbers, one line per prompt) and report/ (Markdown, HTML, PNG).

    python -m stages.report

report/report.html shows every prompt and response and is kept in DVC's cache; everything else is small and kept in git.
Takes a few seconds and loads no model.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.cost import cost
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, rounded, write_json, write_text
from stages.lib.base.measured import PREPARED, SUBJECTS, generated
from stages.lib.base.params import Params, load_params
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Answer, Problem, Prompt, Verdict, read_jsonl
from stages.lib.base.unfinished import clear_finished
from stages.lib.measure.metrics import Measured, Subject, detail, headline, outcomes
from stages.lib.measure.outcomes import to_csv
from stages.lib.report.published import load_study

ANNOTATIONS = Path("data/annotations")
METRICS, REPORT = Path("metrics"), Path("report")
FILES = ("math.jsonl", "safety.jsonl", "verdicts.jsonl")


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    start = time.perf_counter()
    check_inputs(*(generated(subject) / file for subject in SUBJECTS for file in FILES))
    study = load_study()
    measured = read_measured(params)
    head, more, rows = headline(measured), rounded(detail(measured)), outcomes(measured)

    from stages.lib.report import charts, document

    write_json(METRICS / "headline.json", rounded(head))
    write_json(METRICS / "detail.json", more)
    write_text(METRICS / "outcomes.csv", to_csv(rows))
    places = charts.plane_rows(more, study)
    write_table(METRICS / "plane.csv", places)
    write_table(METRICS / "hazards.csv", charts.hazard_rows(more["hazards"]))

    charts.save_png(charts.plane(places), REPORT / "plane.png")
    charts.save_png(charts.hazards(more["hazards"]), REPORT / "hazards.png")
    charts.save_png(charts.loss(METRICS / "loss.csv"), REPORT / "loss.png")

    costs = [json.loads(read_text(path)) for path in sorted(Path("data/costs").glob("*.json"))]
    costs.append(cost("report", time.perf_counter() - start, sum(head["n"].values()), None))
    write_json(METRICS / "cost.json", costs)
    facts = document.contents(params, study, head, more, costs, read_by_people(measured))
    lines = document.prompt_lines(measured, rows)
    write_text(REPORT / "report.md", document.markdown(params, facts))
    write_text(REPORT / "report.html", document.html(params, study, more, METRICS / "loss.csv", lines, facts))
    clear_finished()
    print(f"report: {facts['sentence']} Open report/report.html, or see report/report.md.")


def read_measured(params: Params) -> Measured:
    """Prompts and both subjects' answers, matched by id. Raises BadInput if a file misses a prompt."""
    problems = read_jsonl(PREPARED / "test.jsonl", Problem)
    hazards = read_jsonl(PREPARED / "hazards.jsonl", Prompt)
    benign = read_jsonl(PREPARED / "benign.jsonl", Prompt)
    subjects = {}
    for name in SUBJECTS:
        folder = generated(name)
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
    for name, subject in subjects.items():
        if unasked := [row.id for row in subject.verdicts if row.label is None]:
            path = generated(name) / "verdicts.jsonl"
            raise BadInput(f"{path}: hazard prompt {unasked[0]!r} has the label null; run the judge stage again")
    rule, controversial = params.report.extraction, params.judge.controversial
    return Measured(problems, hazards, benign, subjects["base"], subjects["tuned"], rule, controversial)


def read_by_people(measured: Measured) -> dict[str, Any]:
    """What people's labels of these very responses say of the judge."""
    from stages.lib.report import annotations, document

    ids = [prompt.id for prompt in measured.hazards]
    verdicts = {
        name: dict(zip(ids, measured.safe(subject), strict=True))
        for name, subject in (("base", measured.base), ("tuned", measured.tuned))
    }
    keys = {name: annotations.measured_key(generated(name)) for name in SUBJECTS}
    return document.reader_facts(annotations.read_labels(ANNOTATIONS), keys, verdicts)


def by_id(path: Path, model: type) -> dict[str, Any]:
    return {row.id: row for row in read_jsonl(path, model)}


def in_order(path: Path, rows: Mapping[str, Any], prompts: Sequence[Any]) -> list[Any]:
    missing = [prompt.id for prompt in prompts if prompt.id not in rows]
    if missing:
        raise BadInput(f"{path}: no row for prompt {missing[0]!r} ({len(missing)} missing); run its stage again")
    return [rows[prompt.id] for prompt in prompts]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    run(main)
