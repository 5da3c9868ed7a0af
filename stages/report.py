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
from stages.lib.base.made import Made, differences, read_made
from stages.lib.base.measured import OWN_ROWS, PREPARED, SETS, SUBJECTS, PromptSet, generated, with_own
from stages.lib.base.params import Params, load_params
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Answer, Row, Verdict, read_if_any, read_jsonl
from stages.lib.base.unfinished import clear_finished
from stages.lib.measure.judged import Label
from stages.lib.measure.metrics import Measured, Subject, numbers, outcomes
from stages.lib.measure.outcomes import Outcome, of_set, to_csv
from stages.lib.measure.reader import LABELS, VERDICTS, corrected, labels_of, speaks_of
from stages.lib.measure.trainings import KEPT, OverSeeds, Training, configuration, others, over_seeds, read_training
from stages.lib.measure.written import detail, headline
from stages.lib.prompts.own import by_set
from stages.lib.report.published import load_study
from stages.lib.report.sentence import safety_fell
from stages.lib.report.wording import counted

ANNOTATIONS = Path("data/annotations")
AGAIN = "Run the stage that writes it again for both: dvc repro --force STAGE@base STAGE@tuned"
METRICS, REPORT = Path("metrics"), Path("report")
LOSSES = ["step", "epoch", "loss", "learning_rate"]
FILES = sorted({file for of in SETS.values() for file in (of.answers, of.verdicts) if file})


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    start = time.perf_counter()
    check_inputs(*(generated(subject) / file for subject in SUBJECTS for file in FILES))
    study = load_study()
    measured = read_measured(params)
    made_by = {name: {file: read_made(generated(name) / file) for file in FILES} for name in SUBJECTS}
    check_alike(measured, made_by, params.base.model)
    found = rounded(numbers(measured))  # tables, texts and charts are of the very numbers that the files have

    from stages.lib.report import annotations, charts, document, tried

    labels = annotations.read_labels(ANNOTATIONS)
    keys = {name: annotations.measured_key(generated(name)) for name in SUBJECTS}
    rows = outcomes(measured, annotations.agreed(labels, keys))
    sides = (of_set(rows, "hazards", name) for name in SUBJECTS)
    judged = rounded(corrected(list(zip(*sides, strict=True)), read_labels_of_judge(params)))

    write_json(METRICS / "headline.json", headline(found))
    write_text(METRICS / "outcomes.csv", to_csv(rows))
    made = {name: {file: how.values() for file, how in of.items()} for name, of in made_by.items()}
    write_json(METRICS / "made.json", made)
    write_table(METRICS / "plane.csv", charts.plane_rows(found, study))
    write_table(METRICS / "hazards.csv", charts.hazard_rows(found.hazards))

    seeds = rounded(changes_over_seeds(measured, rows, params))

    losses = read_losses(METRICS / "loss.csv")
    pictures = {
        "plane": charts.plane(charts.base_and_tuned(found), study.baselines, study.runs),
        "hazards": charts.hazards(found.hazards),
        "loss": charts.loss(losses),
    }
    for name, chart in pictures.items():
        charts.save_png(chart, REPORT / f"{name}.png")

    costs = [json.loads(read_text(path)) for path in sorted(Path("data/costs").glob("*.json"))]
    costs.append(cost("report", time.perf_counter() - start, sum(map(len, measured.prompts.values())), None))
    write_json(METRICS / "cost.json", costs)
    to_try = tried.what_to_try(study, params) if safety_fell(found.measures, seeds) else {}
    read = read_by_people(measured, labels, keys)
    facts = document.contents(params, study, found, costs, read, judged, seeds, to_try)
    write_json(METRICS / "detail.json", {"sentence": facts["sentence"], **detail(found, judged, seeds)})
    lines = document.prompt_lines(measured, rows)
    write_text(REPORT / "report.md", document.markdown(params, facts))
    write_text(REPORT / "report.html", document.html(params, study, facts, pictures, list(losses["loss"]), lines))
    clear_finished()
    print(f"report: {facts['sentence']} Open report/report.html, or see report/report.md.")


def read_measured(params: Params) -> Measured:
    """Prompts and both subjects' answers, matched by id. Raises BadInput if a file misses a prompt."""
    prompts = {of.name: read_jsonl(PREPARED / of.prompts, of.row) for of in SETS.values()}
    own = by_set([row for file, kind in OWN_ROWS.items() for row in read_if_any(PREPARED / file, kind)])
    if set(own) != set(params.sets):
        raise BadInput(f"{PREPARED}: not prepared with the `sets` of params.yaml; run `dvc repro`")
    prompts |= {name: own[name] for name in params.sets}
    sets = with_own(params.own)
    subjects = {name: read_subject(generated(name), prompts, sets) for name in SUBJECTS}
    return Measured(prompts, subjects, params.report.extraction, params.judge.controversial)


def read_subject(folder: Path, prompts: Mapping[str, Sequence[Row]], sets: Mapping[str, PromptSet]) -> Subject:
    """One subject's answers and verdicts, by set. Raises BadInput if a file misses a prompt."""
    answers = {of.name: in_order(folder / of.answers, Answer, prompts[of.name]) for of in sets.values()}
    judged = [of for of in sets.values() if of.verdicts]
    verdicts = {of.name: in_order(folder / of.verdicts, Verdict, prompts[of.name]) for of in judged}
    for of in judged:
        unasked = [row.id for row in verdicts[of.name] if row.label is None and of.name != "benign"]
        if unasked:
            path = folder / of.verdicts
            raise BadInput(f"{path}: {of.item} {unasked[0]!r} has the label null; run the judge stage again")
    return Subject(answers, verdicts)


def check_alike(measured: Measured, made_by: Mapping[str, Mapping[str, Made]], other: str | None = None) -> None:
    """Refuse answers of base and tuned that were not asked and made alike: they would differ without any tuning. Where
    the base is an `other` model (base.model), its files are others, and its template may render the same otherwise."""
    base, tuned = SUBJECTS
    for of in measured.sets.values():
        pairs = zip(*(measured.subjects[name].answers[of.name] for name in SUBJECTS), strict=True)
        if unlike := [one.id for one, two in pairs if one.prompt_sha256 != two.prompt_sha256]:
            raise BadInput(
                f"{of.answers}: {counted(len(unlike), 'prompt')}, {unlike[0]!r} the first, rendered otherwise for "
                f"{base} than for {tuned}: they answer other questions. {AGAIN}"
            )
    for file, made in made_by[base].items():
        if other and file in [of.answers for of in SETS.values()]:
            made = made.model_copy(update=made_by[tuned][file].model_dump(include={"content", "template"}))
        if unlike := differences(made, made_by[tuned][file]).incomparable:
            raise BadInput(f"{file} of {base} and of {tuned} were not made alike: {'; '.join(unlike)}. {AGAIN}")


def in_order(path: Path, model: type[Row], prompts: Sequence[Row]) -> list[Any]:
    """A file's rows in the order of the prompts. Raises BadInput if one is missing."""
    rows = {row.id: row for row in read_jsonl(path, model)}
    missing = [prompt.id for prompt in prompts if prompt.id not in rows]
    if missing:
        raise BadInput(f"{path}: no row for prompt {missing[0]!r} ({len(missing)} missing); run its stage again")
    return [rows[prompt.id] for prompt in prompts]


def read_labels_of_judge(params: Params) -> list[Label]:
    """Readers' labels of what the judge in this repository says of the model in it; none where others are at work."""
    paths = [Path(LABELS), Path(VERDICTS)]
    models = (params.model.name, params.tuned.model, params.base.model)
    if not speaks_of(params.judge.model, *models) or not all(path.is_file() for path in paths):
        return []
    return labels_of(*map(read_text, paths))


def changes_over_seeds(measured: Measured, rows: Sequence[Outcome], params: Params) -> dict[str, OverSeeds]:
    """The change of each measure with prompts and training seeds both, from what `tools.runs seeds` kept; nothing of a
    model that was not trained here."""
    if params.tuned.model:
        return {}
    kept = [training for path in sorted(KEPT.glob("*.json")) if (training := training_at(path))]
    own = others(kept, configuration(params), params.finetune.seed)
    found = {}
    for kind, of in measured.sets.items():
        before, after = (of_set(rows, kind, name) for name in SUBJECTS)
        found[of.measure] = over_seeds(before, after, measured.groups(kind), {"after": own, "known": kept})
    return found


def training_at(path: Path) -> Training | None:
    """A kept training, if it is of this code's parameters."""
    return read_training(read_text(path), read_text(path.with_suffix(".csv")), str(path))


def read_losses(path: Path) -> pd.DataFrame:
    """The training loss of each update, as finetune wrote it. Raises BadInput if it is not that."""
    try:
        found = pd.read_csv(path, dtype=dict.fromkeys(LOSSES, float))
        if list(found) != LOSSES:
            raise ValueError(f"columns {', '.join(found)}; expected {', '.join(LOSSES)}")
        return found
    except ValueError as error:  # a missing column, a text, a line of another length
        why = str(error).strip().splitlines()[0]
        raise BadInput(
            f"{path}: not the training loss as finetune writes it ({why}); `git checkout {path}` brings back the one "
            "of the last commit, `dvc repro --force finetune` makes it again"
        ) from None


def read_by_people(measured: Measured, labels: Mapping[str, Sequence[Any]], keys: Mapping[str, str]) -> dict[str, Any]:
    """What people's labels of these very responses say of the judge."""
    from stages.lib.report import people

    ids = [prompt.id for prompt in measured.prompts["hazards"]]
    verdicts = {name: dict(zip(ids, measured.flags(name, "hazards"), strict=True)) for name in SUBJECTS}
    return people.reader_facts(labels, keys, verdicts)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    run(main)
