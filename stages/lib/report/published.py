"""The ten published runs (runs.yaml): their parameters in each profile, their printed results, and which run a run is;
and the ways to forget less that are laid over one of them.

In the embedded profile a 1.5B and a 7B run with the same hyperparameters come out the same (1 and 6): both names match.
"""

import json
import math
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from stages.lib.base.errors import BadInput
from stages.lib.base.fields import Number, Text
from stages.lib.base.params import Params, describe, parse_params
from stages.lib.base.sections import Section
from stages.lib.base.yaml_files import read_yaml

RUNS = Path("runs.yaml")


Share = Annotated[Number, Field(ge=0, le=1)]
Overrides = dict[Annotated[str, Field(strict=True, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)+$")], Any]
SHOWN = (  # Table 2's columns
    "lora.r",
    "lora.alpha",
    "lora.dropout",
    "fewshot.shots",
    "finetune.epochs",
    "finetune.learning_rate",
    "finetune.warmup_ratio",
    "finetune.weight_decay",
    "gen_math.max_new_tokens",
)


def _all_shown(overrides: dict[str, Any]) -> dict[str, Any]:
    if missing := [key for key in SHOWN if key not in overrides]:
        raise ValueError(f"{missing[0]} is missing")
    return overrides


class _Result(Section):
    accuracy: Share
    safety: Share


class _Run(Section):
    size: Text
    published: _Result
    overrides: Annotated[Overrides, AfterValidator(_all_shown)]


class _Profile(Section):
    models: dict[Text, Overrides]
    overrides: Overrides


RunName = Annotated[str, Field(strict=True, pattern=r"^run[0-9]{2}$")]
WayName = Annotated[str, Field(strict=True, pattern=r"^[a-z]+(-[a-z]+)*$")]


class _Mitigations(Section):
    of: RunName
    plain: dict[WayName, Overrides]
    ways: dict[WayName, Overrides]


class _File(Section):
    baselines: dict[Text, _Result]
    common: Overrides
    profiles: dict[Text, _Profile]
    runs: Annotated[dict[RunName, _Run], Field(min_length=1)]
    mitigations: _Mitigations | None = None  # older commits have none


@dataclass(frozen=True)
class Run:
    """One row of the paper's Table 2: model size (1.5B | 7B), dotted overrides, printed accuracy and safety."""

    name: str
    size: str
    overrides: Mapping[str, Any]
    accuracy: float
    safety: float


DEFAULT = Run("default", "", {}, math.nan, math.nan)  # which nobody has published


@dataclass(frozen=True)
class Way:
    """A way to forget less, as dotted overrides that are laid over one of the ten. `plain`: it learns less instead, as
    anyone could."""

    name: str
    overrides: Mapping[str, Any]
    plain: bool = False


@dataclass(frozen=True)
class Study:
    """All of runs.yaml. `ways` are laid over the run named `forgets`, one at a time."""

    runs: tuple[Run, ...]
    common: Mapping[str, Any]
    profiles: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, float]]
    forgets: str = ""
    ways: tuple[Way, ...] = ()

    @property
    def mitigations(self) -> list[Run]:
        """The run that forgets, then each way laid over it."""
        return [self.run(name) for name in (self.forgets, *(way.name for way in self.ways)) if name]

    def run(self, name: str) -> Run:
        """The run of this name; `default` is params.yaml as it stands, `NAME-seed7` a run trained with the seed 7, and
        a way's name the run that forgets with that way. Raises BadInput if there is none."""
        found = re.fullmatch("(.+)-seed([0-9]{1,9})", name)
        if found:
            of = self.run(found[1])
            return replace(of, name=name, overrides={**of.overrides, "finetune.seed": int(found[2])})
        for run in (*self.runs, DEFAULT):
            if run.name == name:
                return run
        for way in self.ways:
            if way.name == name:
                of = self.run(self.forgets)
                overrides = {**of.overrides, **way.overrides}
                return replace(of, name=name, overrides=overrides, accuracy=math.nan, safety=math.nan)
        raise BadInput(f"no run {name!r}; there are {', '.join(each.name for each in (*self.runs, *self.ways))}")

    def overrides(self, run: Run, profile: str) -> dict[str, Any]:
        """Every override of a run in a profile, by dotted key; what is not named stays as in params.yaml. The default
        run and its seeds have a profile of their own, `default`, without any but the seed."""
        if (profile == DEFAULT.name) != (run.size == DEFAULT.size):
            raise BadInput(
                f"{run.name}, profile {profile}: the profile default is of the default run and its seeds alone"
            )
        if profile == DEFAULT.name:
            return dict(run.overrides)
        if profile not in self.profiles:
            raise BadInput(f"no profile {profile!r}; there are {', '.join(self.profiles)}")
        chosen = self.profiles[profile]
        return {**self.common, **chosen["overrides"], **chosen["models"][run.size], **run.overrides}


def load_study(path: Path = RUNS) -> Study:
    """Read runs.yaml. Raises BadInput naming the file, the field, what was found and what was expected."""
    values = read_yaml(path)
    try:
        read = _File.model_validate(values)
    except ValidationError as error:
        raise BadInput("\n       ".join(describe(problem, str(path), {}) for problem in error.errors()[:5])) from None
    runs = tuple(
        Run(name, run.size, run.overrides, run.published.accuracy, run.published.safety)
        for name, run in read.runs.items()
    )
    for profile, chosen in read.profiles.items():
        for run in runs:
            if run.size not in chosen.models:
                raise BadInput(f"{path}: runs.{run.name}.size: found {run.size!r}; profile {profile} has no such model")
    tried, names = read.mitigations, [run.name for run in runs]
    if tried and tried.of not in names:
        raise BadInput(f"{path}: mitigations.of: found {tried.of!r}, not one of the runs ({', '.join(names)})")
    if tried and (twice := sorted(tried.plain.keys() & tried.ways.keys())):
        raise BadInput(f"{path}: mitigations: {twice[0]} stands under plain and under ways; give one another name")
    plain = [Way(name, overrides, plain=True) for name, overrides in (tried.plain if tried else {}).items()]
    ways = [*plain, *(Way(name, overrides) for name, overrides in (tried.ways if tried else {}).items())]
    values = read.model_dump()
    study = Study(runs, values["common"], values["profiles"], values["baselines"])
    return replace(study, forgets=tried.of if tried else "", ways=tuple(ways))


def resolve(values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> Params:
    """`values` (nested, as params.yaml) with dotted overrides laid over, checked; `sets` takes new names, too. Raises
    BadInput."""
    resolved = deepcopy(dict(values))
    for dotted, value in overrides.items():
        *sections, key = dotted.split(".")
        section: Any = resolved
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or (key not in section and sections != ["sets"]):
            raise BadInput(f"{where}: {dotted}: params.yaml has no such parameter")
        section[key] = value
    return parse_params(resolved, where)


def override(name: str, value: Any) -> str:
    """A parameter in the grammar of `dvc exp run -S`: its value is JSON, with text in single quotes. `++`: DVC takes a
    set of one's own (sets.NAME), of a name that params.yaml does not have, for nothing less."""
    new = "++" if name.startswith("sets.") else ""
    return f"{new}{name}=" + (f"'{value}'" if isinstance(value, str) else json.dumps(value))


def matching_runs(params: Params, study: Study) -> dict[str, list[Run]]:
    """For each profile, the runs whose overrides all hold in these params already: the runs that this run is."""
    values = params.model_dump()
    return {
        profile: [
            run
            for run in study.runs
            if all(_value(values, key) == value for key, value in study.overrides(run, profile).items())
        ]
        for profile in study.profiles
    }


def _value(values: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        values = values[part]
    return values
