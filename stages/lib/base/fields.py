"""The kinds of value that params.yaml holds, each with what it refuses and the words for that. Pure."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

SET_NAME = "[a-z][a-z0-9_]{0,29}"
# sets, measures and rules that are there already
TAKEN = ("math", "hazards", "benign", "accuracy", "safety", "over_refusal", "retention", "unparsed", "form")


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


def _rows(value: Any) -> str | int:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError("expected 'all' or a whole number of rows from 1 up")


def _train_rows(value: Any) -> str | int:
    if isinstance(value, str) and re.fullmatch(r"shortest_third(/[1-9][0-9]{0,8})?", value):
        return value
    try:
        return _rows(value)
    except ValueError:
        raise ValueError(
            "expected 'all', 'shortest_third', so many of those (shortest_third/256) or a number of rows from 1 up"
        ) from None


def _set_name(value: str) -> str:
    if not re.fullmatch(SET_NAME, value):
        raise ValueError("expected a name of up to 30 of a-z, 0-9 and _, beginning with a letter")
    if value in TAKEN:
        raise ValueError("this name is taken; call the set otherwise")
    return value


def _commit(value: str | None) -> str | None:
    if value is None or re.fullmatch(r"[0-9a-f]{40}", value):
        return value
    raise ValueError("expected null or a full commit hash (40 hex digits), so that the content cannot change")


def _sha256(value: str | None) -> str | None:
    if value is None or re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    raise ValueError("expected null or a sha256 (64 hex digits, lower case)")


Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, BeforeValidator(_not_bool)]  # also takes '3e-5' in quotes
Switch = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Said = Annotated[str, Field(strict=True)]  # may be nothing
Rows = Annotated[str | int, PlainValidator(_rows)]
TrainRows = Annotated[str | int, PlainValidator(_train_rows)]
Commit = Annotated[str | None, AfterValidator(_commit)]
Sha256 = Annotated[str | None, AfterValidator(_sha256)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
SetName = Annotated[str, Field(strict=True), AfterValidator(_set_name)]
SetAnswer = Literal["number", "choice", "text", "judged"]
BatchSize = Annotated[Whole, Field(ge=1, le=4096)]
NewTokens = Annotated[Whole, Field(ge=1, le=32768)]
Quantization = Literal["nf4", "none"]
