"""params.yaml as one frozen tree of values, checked whole before anything heavy is imported.

YAML is read as version 1.2 (ruamel), where `3e-5` is a number; PyYAML would give a string. Unknown keys are refused.
A stage's main() reads params, everything under it takes plain values, or a section (sections.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from stages.lib.base.errors import BadInput, short
from stages.lib.base.fields import SetAnswer, SetName
from stages.lib.base.sections import (
    Base,
    Data,
    Fewshot,
    Finetune,
    Generate,
    Generation,
    Judge,
    Lora,
    Machine,
    Model,
    Report,
    Review,
    Section,
    Tuned,
)
from stages.lib.base.yaml_files import lines_of, read_yaml


class Params(Section):
    data: Data
    sets: dict[SetName, SetAnswer] = {}  # older commits have none
    model: Model
    lora: Lora
    fewshot: Fewshot
    finetune: Finetune
    tuned: Tuned = Tuned()
    base: Base = Base()
    generate: Generate = Generate()  # older commits have none
    gen_math: Generation
    gen_safety: Generation
    judge: Judge
    report: Report
    machine: Machine = Machine()  # older commits have none
    review: Review

    @property
    def own(self) -> dict[str, bool]:
        """The names in `sets`, and whether the judge reads the answers."""
        return {name: answer == "judged" for name, answer in self.sets.items()}

    @model_validator(mode="after")
    def _served(self) -> "Params":
        if self.generate.engine == "server" and self.lora.strength != 1:
            raise ValueError(
                "lora.strength is the scale of an adapter where our engine puts it on; a server (generate.engine) puts "
                "it on in whole, so set lora.strength to 1"
            )
        return self

    @model_validator(mode="after")
    def _trainable(self) -> "Params":
        if self.lora.enabled or self.tuned.model:  # the rest is of a full-parameter tuning here
            return self
        if self.model.quantization != "none":
            raise ValueError(
                "lora.enabled is false, but full-parameter tuning cannot train 4-bit weights; "
                "set model.quantization to none as well"
            )
        if self.finetune.kl:
            raise ValueError(
                "finetune.kl compares with the untuned model, which is the tuned one with its adapter off; "
                "full-parameter tuning (lora.enabled is false) has none, so set finetune.kl to 0"
            )
        if self.lora.strength != 1:
            raise ValueError(
                "lora.strength is the scale of an adapter; full-parameter tuning (lora.enabled is false) makes none, "
                "so set lora.strength to 1"
            )
        return self


def defaults(section: type[Section] = Params, above: str = "") -> dict[str, Any]:
    """What each key that older commits lack (`lora.strength`) is where it is not there: of no effect."""
    found = {}
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found |= defaults(field.annotation, f"{above}{key}.")
        elif not field.is_required():
            found[f"{above}{key}"] = field.default
    return found


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml. Raises BadInput naming file, line, field, what was found and what was expected."""
    return parse_params(read_yaml(path), str(path), lines_of(path))


def parse_params(values: Any, where: str, lines: Mapping[tuple[str, ...], int] | None = None) -> Params:
    """Check a nested mapping against the schema. `lines` maps a field's path to its line, for the message."""
    if not isinstance(values, dict):
        raise BadInput(f"{where}: expected a mapping of sections (data, model, lora, ...), found {short(values)}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [describe(problem, where, lines or {}) for problem in error.errors()]
    place = where if Path(where).name == "params.yaml" else f"{where}, or in params.yaml,"  # over which it is laid
    raise BadInput("\n       ".join([*problems, f"mend it in {place} or in the -S override that set it"]))


def describe(problem: Any, where: str, lines: Mapping[tuple[str, ...], int]) -> str:
    """One of pydantic's problems with a file: place, field, what was found, what was expected."""
    path = tuple(str(part) for part in problem["loc"] if part != "[key]")
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = f"{where}:{line}" if line else where
    field = f" {'.'.join(path)}:" if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{place}:{field} unknown key; expected only the keys of the params.yaml in the repository"
    if problem["type"] == "missing":
        return f"{place}:{field} missing"
    message = problem["msg"].removeprefix("Value error, ")
    found = "" if isinstance(problem["input"], dict) else f" found {short(problem['input'])}."
    return f"{place}:{field}{found} {message}"
