"""GSM8K, AILuminate and the embedded data, from three places behind one interface: rows in, checked rows out.

embedded  this repository's data/embedded/
file      the same formats from the paths in data.files (GSM8K JSONL, AILuminate CSV)
hub       GSM8K from the hub at a pinned revision, the AILuminate demo CSV from its repository at a pinned commit; the
          benign prompts still come from data.files.benign. A mirror of them is named by HF_ENDPOINT (see hub.py) and by
          AILUMINATE_URL, under which <commit>/<file> lies (default: GitHub's raw files of mlcommons/ailuminate)

GSM8K rows from the hub are hashed as the JSON Lines that OpenAI published (json.dumps of question and answer), so that
one sha256 covers both homes of the data.
"""

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from stages.lib.base.errors import BadInput
from stages.lib.base.files import cache_folder, read_text, sha256_file
from stages.lib.base.measured import HAZARDS
from stages.lib.base.rows import NonEmpty, Problem, Prompt, check_row, iter_jsonl
from stages.lib.base.sections import Data
from stages.lib.fetch.hub import data_files, reason
from stages.lib.prompts.gsm8k import gold_answer

GSM8K = "openai/gsm8k"
AILUMINATE = "https://raw.githubusercontent.com/mlcommons/ailuminate"
ANSWER_WITHIN = 20  # seconds, and between two pieces of the file
# the files of data/embedded as they are in git; whoever changes one changes its hash here
EMBEDDED_SHA256 = {
    "train": "47c89d33ba57cff74d5a9bd59fbbb6988be5009f90489c091e62829508ffed1e",
    "test": "dccdf1b60d43faaa0853360fdab806de35fde76951491a1128f61b3d8abac299",
    "hazards": "9f394127a8c776fef02b82098c385ef00d4ce7fecd6b1b9eeab791b3168c46b2",
    "benign": "5beaa20fe880a0f88da17d25a8f19c5dfe71f96dcd08252b85fa8b23968c3dd9",
}
AILUMINATE_FILE = "airr_official_1.0_demo_en_us_prompt_set_release.csv"


def _worked_solution(answer: str) -> str:
    if gold_answer(answer) is None:
        raise ValueError("expected a worked solution whose last line is '#### N'")
    return answer


def _prompt_id(name: str) -> str:
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise ValueError("expected an id: up to 200 characters in one line")
    return name


def _hazard_code(code: str) -> str:
    if code not in HAZARDS:
        raise ValueError(f"expected one of {', '.join(HAZARDS)}")
    return code


PromptId = Annotated[str, AfterValidator(_prompt_id)]  # which stands in tables that git keeps


Group = Annotated[str, Field(pattern=r"^[\w .-]{1,60}$")] | None


class Gsm8kRow(BaseModel, strict=True):
    question: NonEmpty
    answer: Annotated[str, AfterValidator(_worked_solution)]
    group: Group = None


class HazardRow(BaseModel, strict=True):  # persona is shown in report.md
    release_prompt_id: PromptId
    prompt_text: NonEmpty
    hazard: Annotated[str, AfterValidator(_hazard_code)]
    persona: Annotated[str, Field(pattern=r"^[\w ,.()/-]{0,60}$")]
    group: Group = None


class BenignRow(BaseModel, strict=True):
    prompt_id: PromptId
    prompt_text: NonEmpty
    hazard: Annotated[str, AfterValidator(_hazard_code)]
    group: Group = None


def load_problems(data: Data, split: str) -> list[Problem]:
    """All rows of GSM8K's or the embedded data's `train` or `test`, ids by position. Raises BadInput."""
    if data.source == "hub":
        values = _gsm8k_from_hub(split, data.gsm8k_revision)
        canonical = "".join(json.dumps({"question": v["question"], "answer": v["answer"]}) + "\n" for v in values)
        _check_sha256(f"openai/gsm8k {split}", hashlib.sha256(canonical.encode()).hexdigest(), data.sha256, split)
        placed = [(f"openai/gsm8k {split} row {n}", value) for n, value in enumerate(values)]
    else:
        path = Path(getattr(data.files, split))
        _check_file(path, data, split)
        placed = list(iter_jsonl(path))
    rows = [check_row(Gsm8kRow, value, place) for place, value in placed]
    if not rows:
        raise BadInput(f"{GSM8K if data.source == 'hub' else getattr(data.files, split)}: no rows")
    return [
        Problem(
            id=f"{split}-{n:05d}",
            question=row.question,
            answer=row.answer,
            gold=gold_answer(row.answer) or "",
            group=row.group,
        )
        for n, row in enumerate(rows)
    ]


def load_hazards(data: Data) -> list[Prompt]:
    """All hazard prompts, in file order. Raises BadInput."""
    path = _hazards_file(data)
    _check_file(path, data, "hazards")
    placed = _iter_csv(path, HazardRow)
    rows = [check_row(HazardRow, value, where) for where, value in placed]
    return _unique(
        [
            Prompt(id=r.release_prompt_id, text=r.prompt_text, hazard=r.hazard, persona=r.persona, group=r.group)
            for r in rows
        ],
        [where for where, _ in placed],
    )


def load_benign(data: Data) -> list[Prompt]:
    """All benign prompts, in file order. Raises BadInput."""
    path = Path(data.files.benign)
    _check_file(path, data, "benign")
    placed = _iter_csv(path, BenignRow)
    rows = [check_row(BenignRow, value, where) for where, value in placed]
    return _unique(
        [Prompt(id=r.prompt_id, text=r.prompt_text, hazard=r.hazard, persona="", group=r.group) for r in rows],
        [where for where, _ in placed],
    )


def place(data: Data, name: str, row: str) -> str:
    """Where the row of this id stands in the set `name`, for a message: file:line."""
    if name == "replay":
        return row
    if name == "hazards":
        rows = _iter_csv(_hazards_file(data), HazardRow)
        return next(where for where, values in rows if values["release_prompt_id"] == row)
    if name == "benign":
        rows = _iter_csv(Path(data.files.benign), BenignRow)
        return next(where for where, values in rows if values["prompt_id"] == row)
    split, _, number = row.rpartition("-")
    if data.source == "hub":
        return f"{GSM8K} {split} row {int(number)}"
    return f"{getattr(data.files, split)}:{int(number) + 1}"


def _hazards_file(data: Data) -> Path:
    return _ailuminate_from_github(data) if data.source == "hub" else Path(data.files.hazards)


def _iter_csv(path: Path, model: type[BaseModel]) -> list[tuple[str, dict[str, Any]]]:
    """(file:line, row) for each CSV row; the header must hold the model's columns but for those that may be left out
    (or empty), others are ignored."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    rows = []
    try:
        needed = [name for name, field in model.model_fields.items() if field.is_required()]
        missing = [column for column in needed if column not in (reader.fieldnames or [])]
        if missing:
            wanted = ", ".join(needed)
            raise BadInput(
                f"{path}:1: column {missing[0]!r} is missing; found {reader.fieldnames!r:.200}, expected {wanted} and "
                "commas between them"
            )
        if len(set(reader.fieldnames)) < len(reader.fieldnames):
            raise BadInput(f"{path}:1: a column stands there twice; found {reader.fieldnames!r:.200}")
        for row in reader:
            if None in row:
                more = f"{len(row[None])} more fields than columns"
                raise BadInput(f"{path}:{reader.line_num}: {more}; quote a text that has a comma in it")
            values = {name: row.get(name) or None for name in model.model_fields.keys() - needed}
            rows.append((f"{path}:{reader.line_num}", {**{name: row[name] for name in needed}, **values}))
    except csv.Error as error:
        raise BadInput(f"{path}:{reader.reader.line_num}: not readable as CSV: {error}") from None
    if not rows:
        raise BadInput(f"{path}: no rows under the header")
    return rows


def _unique(prompts: list[Prompt], places: list[str]) -> list[Prompt]:
    seen: dict[str, str] = {}
    for prompt, where in zip(prompts, places, strict=True):
        if prompt.id in seen:
            raise BadInput(f"{where}: id {prompt.id!r} stands in {seen[prompt.id]} already; ids must be unique")
        seen[prompt.id] = where
    return prompts


def _check_file(path: Path, data: Data, name: str) -> None:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises on a name too long for the disk
        raise BadInput(f"{path}: no such file; it is named by data.files.{name} in params.yaml")
    found = sha256_file(path)
    if data.source == "embedded" and found != EMBEDDED_SHA256[name]:
        raise BadInput(
            f"{path}: not the file of this repository (sha256 {found}, not {EMBEDDED_SHA256[name]}); `git checkout "
            f"{path}` brings it back, and source: file reads data of your own"
        )
    _check_sha256(str(path), found, data.sha256, name)


def _check_sha256(what: str, found: str, pinned: Any, name: str) -> None:
    expected = getattr(pinned, name)
    if expected is not None and found != expected:
        raise BadInput(
            f"{what}: sha256 is {found}, but data.sha256.{name} expects {expected}; "
            "fetch the file again, or change the pin if the new content is meant"
        )


def _gsm8k_from_hub(split: str, revision: str | None) -> list[dict[str, str]]:
    from datasets import Dataset, disable_progress_bars, logging
    from datasets.exceptions import DatasetsError

    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # of an error, which becomes the message
    files = [str(file) for file in data_files(GSM8K, revision, "main/*.parquet") if file.name.startswith(f"{split}-")]
    if not files:
        raise BadInput(
            f"{GSM8K} at {revision}: it holds no main/{split}-*.parquet; name another commit in data.gsm8k_revision"
        )
    try:
        with TemporaryDirectory() as unused:  # where it would keep the rows a second time
            rows = Dataset.from_parquet(files, columns=["question", "answer"], cache_dir=unused).to_list()
    except (OSError, ValueError, LookupError, DatasetsError) as error:
        raise BadInput(
            f"{files[0]}: not readable as GSM8K's parquet: {str(error)[:200]}; remove the folder "
            f"{Path(files[0]).parents[3]}, and it is downloaded again"
        ) from None
    return rows


def _ailuminate_from_github(data: Data) -> Path:
    import pooch

    address = f"{os.environ.get('AILUMINATE_URL', AILUMINATE)}/{data.ailuminate_revision}/{AILUMINATE_FILE}"
    pin = f"sha256:{data.sha256.hazards}" if data.sha256.hazards else None
    fetch = pooch.HTTPDownloader(timeout=ANSWER_WITHIN)
    kept = f"{data.ailuminate_revision}-{AILUMINATE_FILE}"  # the same file, wherever it comes from
    try:
        return Path(pooch.retrieve(address, known_hash=pin, fname=kept, path=cache_folder(), downloader=fetch))
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None):  # the disk's: cli.py words it
            raise
        raise BadInput(
            f"{address}: cannot be fetched ({reason(error)}). Check data.ailuminate_revision and the network, and run "
            "this again; AILUMINATE_URL names a mirror"
        ) from None
