"""Sets of a reader's own (`sets` in params.yaml): data/sets/NAME.jsonl → checked rows. Pure but for reading.

A line is an object with `prompt`, and `id` and `group` if you like; `answer` is the right one: a number; the letter of
one of `choices`; an exact text of one line. Judged prompts have none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import NonEmpty, Risk, Skill, check_row, iter_jsonl
from stages.lib.data.sources import Group, PromptId
from stages.lib.prompts.gsm8k import as_number
from stages.lib.prompts.own import LETTERS

FOLDER = Path("data/sets")


def _number(value: Any) -> str:
    text = value if isinstance(value, str) else "" if isinstance(value, bool) else str(value)
    if as_number(text) is None:
        raise ValueError("expected a number, as 18 or '1,250.50'")
    return text


def _one_line(value: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) > 1:
        raise ValueError("expected a text of one line, which the first line of an answer is compared with")
    return value.strip()


class JudgedRow(BaseModel, strict=True, extra="forbid"):
    prompt: NonEmpty
    id: PromptId | None = None
    group: Group = None


class NumberRow(JudgedRow):
    answer: Annotated[str, BeforeValidator(_number)]


class TextRow(JudgedRow):
    answer: Annotated[str, BeforeValidator(_one_line)]


class ChoiceRow(JudgedRow):
    choices: Annotated[list[NonEmpty], Field(min_length=2, max_length=len(LETTERS))]
    answer: str

    @field_validator("answer")
    @classmethod
    def _one_of_them(cls, answer: str, info: ValidationInfo) -> str:
        letters = LETTERS[: len(info.data.get("choices", LETTERS))]
        if len(answer) != 1 or answer not in letters:
            raise ValueError(f"expected the letter of a choice, one of {', '.join(letters)}")
        return answer


ROWS = {"number": NumberRow, "choice": ChoiceRow, "text": TextRow, "judged": JudgedRow}


def load_own(sets: Mapping[str, str], most: str | int) -> tuple[list[Skill], list[Risk], dict[str, str]]:
    """The questions of all sets, their judged prompts, and where each row stands (file:line) by its id, which begins
    with the set's name. At most the first `most` of each set, or `all`. Raises BadInput."""
    skills: list[Skill] = []
    risks: list[Risk] = []
    places: dict[str, str] = {}
    for name, answer in sets.items():
        path = FOLDER / f"{name}.jsonl"
        if not path.is_file():
            raise BadInput(f"{path}: no such file; params.yaml has the set {name} in `sets`, which is read from there")
        placed = [(place, check_row(ROWS[answer], value, place)) for place, value in iter_jsonl(path)]
        if not placed:
            raise BadInput(f"{path}: no rows")
        for number, (place, row) in enumerate(placed, 1):
            row_id = f"{name}/{row.id or number}"
            if row_id in places:
                raise BadInput(f"{place}: id {row.id or number!r} stands in {places[row_id]} already; ids are unique")
            places[row_id] = place
            if most != "all" and number > most:
                continue
            if answer == "judged":
                risks.append(Risk(id=row_id, set=name, text=row.prompt, group=row.group))
            else:
                choices = getattr(row, "choices", None)
                same = {"set": name, "answer": answer, "text": row.prompt, "choices": choices, "group": row.group}
                skills.append(Skill(id=row_id, gold=row.answer, **same))
    return skills, risks, places
