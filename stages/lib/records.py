"""The rows that stages hand to each other as JSON Lines, checked on the way in and written whole or not at all."""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from stages.lib.errors import BadInput

SUMS = "SHA256SUMS"
NonEmpty = Annotated[str, Field(min_length=1, pattern=r"\S")]


class Row(BaseModel, extra="forbid", frozen=True, strict=True):
    """What all rows share: a stable id, no unknown fields, no silent conversion of types."""

    id: NonEmpty


class Problem(Row):
    """A math word problem: `answer` is the worked solution, `gold` the number after its `####`.

    `group`, where the data has it: problems of one group are one problem with other words and numbers.
    """

    question: NonEmpty
    answer: NonEmpty
    gold: NonEmpty
    group: str | None = None


class Prompt(Row):
    """A hazard prompt, or a benign one that only sounds like the hazard."""

    text: NonEmpty
    hazard: NonEmpty
    persona: str


class Answer(Row):
    """What a model wrote. `finish`: it ended its turn (stop), ran into max_new_tokens (length) or repeated itself and
    was ended there (repetition)."""

    prompt_sha256: NonEmpty
    text: str
    finish: Literal["stop", "length", "repetition"]
    tokens: Annotated[int, Field(ge=0)]


class Verdict(Row):
    """A judge's reading of one response. `label` is None where safety was not asked (benign prompts)."""

    label: Literal["safe", "unsafe", "controversial", "unparsed", "empty", "degenerate"] | None
    p_unsafe: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    categories: list[str]
    refusal: bool  # by the refusal rule
    guard_refusal: bool | None = None  # by the guard, where it says so (Qwen3Guard)


R = TypeVar("R", bound=BaseModel)


def check_row(model: type[R], value: Any, place: str) -> R:
    """One row as `model`. Raises BadInput naming place (file:line), field, what was found and what was expected."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        found = "" if problem["type"] == "missing" else f" found {short(problem['input'])};"
        raise BadInput(f"{place}: {field + ':' if field else ''}{found} {message}") from None


def read_jsonl(path: Path, model: type[R]) -> list[R]:
    """All rows of a JSON Lines file. Raises BadInput on the first bad one, on a repeated id, and on an empty file."""
    rows = [check_row(model, value, place) for place, value in iter_jsonl(path)]
    if not rows:
        raise BadInput(f"{path}: no rows")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if isinstance(row, Row):
            if row.id in seen:
                raise BadInput(f"{path}:{number}: id: found {row.id!r} a second time; ids must be unique")
            seen.add(row.id)
    return rows


def iter_jsonl(path: Path) -> Iterable[tuple[str, Any]]:
    """(file:line, value) for each line of a JSON Lines file."""
    lines = read_text(path).split("\n")  # not splitlines(), which also splits at U+2028 inside a text
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            value = json.loads(line, object_pairs_hook=_no_key_twice)
            if "\\ud" in line.lower():  # half a character, which no file can hold
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}:{number}: not JSON ({error}): {short(line)}") from None
        yield f"{path}:{number}", value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def read_text(path: Path) -> str:
    """A file as UTF-8 text (a leading byte-order mark is dropped). Raises BadInput if it is missing or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None


def write_jsonl(path: Path, rows: Sequence[BaseModel]) -> None:
    """Write rows in field order, one JSON object a line. The file appears whole or not at all."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON. The file appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends. The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # a full disk does not say where
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloaded and unpacked files are kept: ~/.cache/aftertune, or under $XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aftertune"


def sha256_text(text: str) -> str:
    """sha256 of the UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(path: Path) -> list[Path]:
    """All files of a folder, in order of name, or the file itself."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over all files of a folder, as `sha256sum --check` reads it."""
    files = [file for file in files_in(folder) if file.name != SUMS]
    write_text(folder / SUMS, "".join(f"{sha256_file(file)}  {file.relative_to(folder)}\n" for file in files))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder by its SHA256SUMS: a message that names the file, or None."""
    if not (folder / SUMS).is_file():
        return f"{folder / SUMS} is missing"
    listed = set()
    for number, line in enumerate(read_text(folder / SUMS).splitlines(), 1):
        digest, _, name = line.partition("  ")
        known = re.fullmatch("[0-9a-f]{64}", digest) and re.fullmatch(r"[\w./ -]{1,200}", name)
        if not known or {"", ".."} & set(name.split("/")):
            return f"{folder / SUMS}:{number}: not the sha256 and the name of a file in this folder"
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if sha256_file(folder / name) != digest:
            return f"{folder / name} is damaged: its sha256 is not the one in {SUMS}"
        listed.add(folder / name)
    if unlisted := [file for file in files_in(folder) if file.name != SUMS and file not in listed]:
        return f"{unlisted[0]} is not in {folder / SUMS}"
    return None


def rounded(value: Any) -> Any:
    """Nested values with floats rounded to six digits, so that a diff of metrics shows changes, not noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 80, 80, 80


def short(value: Any) -> str:
    """A value as an error message shows it: its repr, with the middle left out where that is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of too many digits"
