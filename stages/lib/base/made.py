"""How a file of answers or verdicts was made: what was asked by which template of which model, and what computed it.

It lies beside that file (math.jsonl: math.made.json), so that answers are compared only with answers to the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_json
from stages.lib.base.rows import check_row


class Made(BaseModel, extra="forbid", frozen=True, strict=True):
    """All fields are None, and `libraries` is empty, where no model was asked (the refusal rule).

    `content`: sha256 over the model's files; `tuning`: over the adapter or the weights put on it, None for the untuned
    model; `template`: sha256 of the chat template; `rendering`: of one conversation, the same for all, as it renders
    it; `dtype`: what was computed in, float32 for bfloat16 on a CPU without 16 bits; `device`: kind of CPU or GPU;
    `served`: what a server that answered calls the model, None of our engine (by_server).
    """

    model: str | None
    revision: str | None
    content: str | None
    tuning: str | None
    template: str | None
    rendering: str | None
    quantization: str | None
    dtype: str | None
    engine: str | None
    libraries: Mapping[str, str]
    device: str | None
    served: str | None = None

    def values(self) -> dict[str, Any]:
        """As it is written: `served` only where a server answered."""
        return self.model_dump(exclude={"served"} if self.served is None else None)


# generate/engine.py's name and version: another version where the same prompts would get other tokens
ENGINE = "shared-prefix 1"
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes")  # that decide what a model answers
NO_MODEL = Made(**{**dict.fromkeys(Made.model_fields), "libraries": {}})
ASKING = ("transformers", "tokenizers")  # of those, the ones that still decide what a server is asked
AS_SERVED = "as served"
# what makes answers answers to something else, or of something else; `tuning` is what is compared
DECIDES = {
    "content": "the model's files",
    "template": "the chat template",
    "rendering": "what the chat template renders",
    "quantization": "quantization",
    "dtype": "the dtype of the computation",
    "engine": "the engine",
}
# what can change single tokens, like another number of threads
SAID = {"model": "the model's name", "revision": "its revision", "device": "the device"}


@dataclass(frozen=True)
class Differences:
    """In words: what makes two files of answers incomparable, and what is only worth a word."""

    incomparable: list[str]
    noted: list[str]


def by_server(made: Made, engine: str, model: str) -> Made:
    """The same where a server answered: `engine`, its name and version, as what it calls `model`. In which numbers and
    on which processor, it alone knows."""
    known = {name: version for name, version in made.libraries.items() if name in ASKING}
    unknown = {"quantization": AS_SERVED, "dtype": AS_SERVED, "device": None}
    return made.model_copy(update={**unknown, "engine": engine, "libraries": known, "served": model})


def made_file(rows: Path) -> Path:
    """Where it is written how a file of rows was made."""
    return rows.with_suffix(".made.json")


def write_made(rows: Path, made: Made) -> None:
    """Write how a file of rows was made, beside it."""
    write_json(made_file(rows), made.values())


def read_made(rows: Path) -> Made:
    """How a file of rows was made. Raises BadInput if that is not there or not as `write_made` wrote it."""
    path = made_file(rows)
    try:
        values = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error}); run the stage that writes {rows} again") from None
    return check_row(Made, values, str(path))


def differences(one: Made, other: Made) -> Differences:
    """What differs in how two files were made: each as `what (in the one, in the other)`."""
    values = [(made.model_dump(exclude={"libraries"}), made.libraries) for made in (one, other)]
    (first, first_libraries), (second, second_libraries) = values
    decides = [_unlike(words, first[field], second[field]) for field, words in DECIDES.items()]
    said = [_unlike(words, first[field], second[field]) for field, words in SAID.items()]
    libraries = [
        _unlike(name, first_libraries.get(name), second_libraries.get(name))
        for name in sorted({*first_libraries, *second_libraries})
    ]
    return Differences([*filter(None, decides)], [*filter(None, [*said, *libraries])])


def _unlike(what: str, one: str | None, other: str | None) -> str:
    """A difference in words, hashes cut short; nothing where there is none."""
    shown = [value[:8] if value and len(value) == 64 else value or "none" for value in (one, other)]
    return "" if one == other else f"{what} ({shown[0]}, {shown[1]})"
