"""The rows that stages hand to each other as JSON Lines, checked on the way in and written whole or not at all."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from stages.lib.base.errors import BadInput, short
from stages.lib.base.files import read_text, write_text

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
    hazard: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """What is asked, by the name that it has in a prompt."""
        return self.question


class Prompt(Row):
    """A hazard prompt, or a benign one that only sounds like the hazard. `group`: where the data has it, the topic or
    source that it shares with others."""

    text: NonEmpty
    hazard: NonEmpty
    persona: str
    group: str | None = None
    gold: ClassVar[None] = None  # no number answers it


class Skill(Row):
    """A question of a reader's own set. `gold`: the number, the letter of a choice, or the exact text that is right."""

    set: NonEmpty
    answer: Literal["number", "choice", "text"]
    text: NonEmpty
    choices: list[NonEmpty] | None = None
    gold: NonEmpty
    group: str | None = None
    hazard: ClassVar[str] = ""


class Risk(Row):
    """A prompt of a reader's own set whose response the judge reads."""

    set: NonEmpty
    text: NonEmpty
    group: str | None = None
    hazard: ClassVar[str] = ""
    gold: ClassVar[None] = None


class Answer(Row):
    """What a model wrote. `finish`: it ended its turn (stop), ran into max_new_tokens (length) or repeated itself and
    was ended there (repetition). `divergence`: of the tuned model from the untuned one, in nats by the token, on what
    that one wrote to the same harmless prompt."""

    prompt_sha256: NonEmpty
    text: str
    finish: Literal["stop", "length", "repetition"]
    tokens: Annotated[int, Field(ge=0)]
    divergence: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class Verdict(Row):
    """A judge's reading of one response. `label` is None where safety was not asked (benign prompts)."""

    label: Literal["safe", "unsafe", "controversial", "unparsed", "empty", "degenerate"] | None
    p_unsafe: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    categories: list[str]
    refusal: bool  # by the refusal rule
    guard_refusal: bool | None = None  # by the guard, where it says so (Qwen3Guard)

    @property
    def refused(self) -> bool:
        """Whether the response refuses: by the guard where it says so, else by the refusal rule."""
        return self.refusal if self.guard_refusal is None else self.guard_refusal


R = TypeVar("R", bound=BaseModel)


def check_row(model: type[R], value: Any, place: str) -> R:
    """One row as `model`. Raises BadInput naming place (file:line), field, what was found and what was expected."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        field = f" {'.'.join(str(part) for part in problem['loc'])}:" if problem["loc"] else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "model_type":  # which names a class of the code
            message = f"expected an object with the fields {', '.join(model.model_fields)}"
        found = "" if problem["type"] == "missing" else f" found {short(problem['input'])};"
        raise BadInput(f"{place}:{field}{found} {message}") from None


def read_jsonl(path: Path, model: type[R]) -> list[R]:
    """All rows of a JSON Lines file. Raises BadInput on the first bad one, on a repeated id, and on an empty file."""
    return parse_jsonl(read_text(path), str(path), model)


def parse_jsonl(text: str, where: str, model: type[R]) -> list[R]:
    """All rows of a JSON Lines text. Raises BadInput naming where on what `read_jsonl` does."""
    rows = [check_row(model, value, place) for place, value in _values(text, where)]
    if not rows:
        raise BadInput(f"{where}: no rows")
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if isinstance(row, Row):
            if row.id in seen:
                raise BadInput(f"{where}:{number}: id: found {row.id!r} a second time; ids must be unique")
            seen.add(row.id)
    return rows


def read_if_any(path: Path, model: type[R]) -> list[R]:
    """The same rows; none of a file that holds nothing but white space."""
    text = read_text(path)
    return parse_jsonl(text, str(path), model) if text.strip() else []


def iter_jsonl(path: Path) -> Iterable[tuple[str, Any]]:
    """(file:line, value) for each line of a JSON Lines file."""
    return _values(read_text(path), str(path))


def _values(text: str, where: str) -> Iterable[tuple[str, Any]]:
    lines = text.split("\n")  # not splitlines(), which also splits at U+2028 inside a text
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            value = json.loads(line, object_pairs_hook=_no_key_twice)
            if "\\ud" in line.lower():  # half a character, which no file can hold
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{where}:{number}: not JSON ({error}): {short(line)}; expected an object a line") from None
        yield f"{where}:{number}", value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def write_jsonl(path: Path, rows: Sequence[BaseModel]) -> None:
    """Write rows in field order, one JSON object a line. The file appears whole or not at all."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))
