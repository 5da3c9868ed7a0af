"""What a commit, branch, tag or DVC experiment says: its parameters, metrics and outcomes, and its generations if the
cache holds them. `workspace` is the working tree as it stands."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any

from stages.lib.base.dvc_lock import parse_lock, recorded
from stages.lib.base.errors import BadInput
from stages.lib.base.made import Made
from stages.lib.base.measured import OWN_ROWS, PREPARED, SETS, generated, with_own
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Answer, Problem, Prompt, Risk, Skill, Verdict, check_row, parse_jsonl
from stages.lib.base.yaml_files import parse_yaml
from stages.lib.measure.judged import Label
from stages.lib.measure.outcomes import Outcome, from_csv
from stages.lib.measure.reader import LABELS, VERDICTS, labels_of, speaks_of
from stages.lib.measure.trainings import KEPT, Training, configuration, read_training
from tools.commands import dvcs_library

WORKSPACE = "workspace"
HEADLINE, OUTCOMES, PARAMS = "metrics/headline.json", "metrics/outcomes.csv", "params.yaml"
REFERENCE = "review.reference"  # the parameter that names a revision that each change is held against
MADE = "metrics/made.json"  # which older commits do not have
GENERATED = generated("tuned")
JUDGED = GENERATED / SETS["hazards"].verdicts
ROWS = {
    **{PREPARED / each.prompts: each.row for each in SETS.values()},
    **{GENERATED / each.answers: Answer for each in SETS.values()},
    JUDGED: Verdict,
}


@dataclass(frozen=True)
class Revision:
    """`name` as it was asked for, `commit` its hash (`workspace` for the working tree), `params` by dotted key, the
    headline, the outcomes; `lock` maps every file that dvc.lock speaks of to its recorded hash; `made` says how
    each file of the tuned model's answers and verdicts was made (nothing in older commits); `labels`: of its
    judge's verdicts on responses of such models, if it is the one in this repository; `trainings`: kept ones with
    other seeds, of this `configuration` and others."""

    name: str
    commit: str
    params: Mapping[str, Any]
    headline: Mapping[str, Any]
    outcomes: Sequence[Outcome]
    lock: Mapping[str, str]
    made: Mapping[str, Made] = field(default_factory=dict)
    labels: Sequence[Label] = ()
    trainings: Sequence[Training] = ()
    configuration: str = ""


@dataclass(frozen=True)
class Texts:
    """A revision's prompts, by (set, id), and its tuned model's responses and judge's labels."""

    prompts: Mapping[tuple[str, str], Problem | Prompt | Skill | Risk]
    responses: Mapping[tuple[str, str], str]
    labels: Mapping[str, str]


def read_revision(name: str, root: Path = Path()) -> Revision:
    """Read a revision from git. Raises BadInput if there is none of this name, if it holds no metrics, and if its
    metrics are not those of its params.yaml."""
    files = open_revision(name, root)
    where = name if name == WORKSPACE else f"{name}:"

    def text(path: str) -> str:
        try:
            return files.read_text(path, encoding="utf-8", newline="")  # a changed line end is another hash
        except UnicodeDecodeError as error:
            raise BadInput(f"{where} {path}: not UTF-8 ({error})") from None
        except FileNotFoundError:
            raise BadInput(f"{where} {path}: no such file; run `dvc repro` there and commit what it writes") from None

    values = parse_yaml(text(PARAMS), f"{where} {PARAMS}")
    lock = parse_lock(text("dvc.lock"), f"{where} dvc.lock")
    hashes = recorded(lock, "deps", "outs")
    written = {path: text(path) for path in (HEADLINE, OUTCOMES, MADE) if path != MADE or MADE in hashes}
    read = {}
    for path in {HEADLINE, MADE} & set(written):
        try:
            read[path] = json.loads(written[path])
        except ValueError as error:
            raise BadInput(f"{where} {path}: not JSON ({error})") from None
    outcomes = from_csv(written[OUTCOMES], f"{where} {OUTCOMES}")
    params = flat(values)
    for stage, entry in lock["stages"].items():
        for section, used in entry.get("params", {}).get(PARAMS, {}).items():  # a section, or a value: judge.model
            if flat(used, section) != {key: params[key] for key in params if f"{key}.".startswith(f"{section}.")}:
                raise BadInput(
                    f"{where} {stage} was not run with the `{section}` of {PARAMS}; run `dvc repro` there and commit "
                    "dvc.lock and metrics/, or the review would be of other parameters"
                )
    for path, content in written.items():
        if hashes.get(path) != md5(content.encode(), usedforsecurity=False).hexdigest():
            raise BadInput(f"{where} {path}: not what dvc.lock records; run `dvc repro` there and commit both")
    commit = WORKSPACE if name == WORKSPACE else files.repo.get_rev()
    made = {
        file: check_row(Made, each, f"{where} {MADE}") for file, each in read.get(MADE, {}).get("tuned", {}).items()
    }
    try:
        of = configuration(parse_params(values, f"{where} {PARAMS}"))
    except BadInput:  # of other code, which knew other parameters
        of = ""
    kept, labels = trainings_at(files, where), labels_at(files, params, where)
    return Revision(name, commit, params, read[HEADLINE], outcomes, hashes, made, labels, kept, of)


def trainings_at(files: Any, where: str) -> list[Training]:
    """The trainings with other seeds that a revision keeps."""
    names = files.ls(str(KEPT), detail=False) if files.isdir(str(KEPT)) else []
    found = []
    for name in sorted(name for name in names if name.endswith(".json")):
        texts = [files.read_text(path, encoding="utf-8") for path in (name, f"{name.removesuffix('.json')}.csv")]
        if training := read_training(*texts, f"{where} {name}"):
            found.append(training)
    return found


def labels_at(files: Any, params: Mapping[str, Any], where: str) -> list[Label]:
    """Readers' labels of the judge and the model in this repository, as of a revision; none where others were used."""
    paths, models = (LABELS, VERDICTS), (params.get(of) for of in ("model.name", "tuned.model", "base.model"))
    if not speaks_of(params.get("judge.model"), *models) or not all(map(files.isfile, paths)):
        return []
    return labels_of(*(files.read_text(path, encoding="utf-8") for path in paths), where=f"{where} ")


def open_revision(name: str, root: Path = Path()) -> Any:
    """The files of a revision, git's and DVC's alike (a DVCFileSystem). Raises BadInput if there is none."""
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev

    if not name or ":" in name:
        raise BadInput(f"found {name!r}; expected a commit, branch, tag or experiment, or {WORKSPACE}")
    with dvcs_library(root):
        if name == WORKSPACE:
            return DVCFileSystem(str(root.absolute()))
        try:
            with Repo(str(root.absolute())) as repo:
                commit = resolve_rev(repo.scm, name)
        except RevError as error:
            raise BadInput(
                f"{name}: no commit, branch, tag or experiment of this name ({error}); `git fetch` may bring it, and "
                "`dvc exp list --all-commits` shows the experiments"
            ) from None
        return DVCFileSystem(str(root.absolute()), rev=commit)


def read_texts(revision: Revision, root: Path = Path()) -> Texts | None:
    """Prompts and responses of a revision, as its own dvc.lock records them (of the working tree: as they are); None if
    neither DVC's cache nor its remote has all of them."""
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    files = open_revision(revision.name, root)
    try:
        texts = {path: files.read_text(str(path), encoding="utf-8") for path in ROWS}
        rows = {path: parse_jsonl(texts[path], str(path), model) for path, model in ROWS.items()}
        own = [row for file, model in OWN_ROWS.items() for row in own_rows(files, str(PREPARED / file), model)]
    except (OSError, DvcException, DataIndexDirError, BadInput, ValueError):  # missing, or of another version
        return None
    prompts = {(of.name, row.id): row for of in SETS.values() for row in rows[PREPARED / of.prompts]}
    prompts |= {(row.set, row.id): row for row in own}
    sets = with_own({row.set: isinstance(row, Risk) for row in own})
    said = {(of.name, row.id): row.text for of in sets.values() for row in rows[GENERATED / of.answers]}
    written = {key: said[key] for key in prompts if key in said}
    labels = {row.id: row.label for row in rows[JUDGED] if row.label}
    return Texts(prompts, written, labels)


def own_rows(files: Any, path: str, model: type[Skill] | type[Risk]) -> list[Any]:
    """The rows of a revision's own sets; of older commits, which have no such file, none."""
    text = files.read_text(path, encoding="utf-8") if files.exists(path) else ""
    return parse_jsonl(text, path, model) if text.strip() else []


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested parameters by dotted key."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in flat(inner, f"{prefix}.{name}" if prefix else str(name)).items()
    }
