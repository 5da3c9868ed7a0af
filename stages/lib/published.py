"""The ten published runs (runs.yaml): their parameters in each profile, their printed results, and which run a run is.

In the embedded profile a 1.5B and a 7B run with the same hyperparameters come out the same (1 and 6): both names match.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.errors import BadInput
from stages.lib.params import Params, parse_params, read_yaml

RUNS = Path("runs.yaml")


@dataclass(frozen=True)
class Run:
    """One row of the paper's Table 2: model size (1.5B | 7B), dotted overrides, printed accuracy and safety."""

    name: str
    size: str
    overrides: Mapping[str, Any]
    accuracy: float
    safety: float


@dataclass(frozen=True)
class Study:
    """All of runs.yaml."""

    runs: tuple[Run, ...]
    common: Mapping[str, Any]
    profiles: Mapping[str, Any]
    baselines: Mapping[str, Mapping[str, float]]

    def run(self, name: str) -> Run:
        """The run of this name. Raises BadInput if there is none."""
        for run in self.runs:
            if run.name == name:
                return run
        raise BadInput(f"no run {name!r}; there are {', '.join(run.name for run in self.runs)}")

    def overrides(self, run: Run, profile: str) -> dict[str, Any]:
        """Every override of a run in a profile, by dotted key; what is not named stays as in params.yaml."""
        if profile not in self.profiles:
            raise BadInput(f"no profile {profile!r}; there are {', '.join(self.profiles)}")
        chosen = self.profiles[profile]
        return {**self.common, **chosen["overrides"], **chosen["models"][run.size], **run.overrides}


def load_study(path: Path = RUNS) -> Study:
    """Read runs.yaml. Raises BadInput naming the file and what is missing."""
    values = read_yaml(path)
    try:
        runs = tuple(
            Run(name, run["size"], run["overrides"], run["published"]["accuracy"], run["published"]["safety"])
            for name, run in values["runs"].items()
        )
        study = Study(runs, values["common"], values["profiles"], values["baselines"])
        for profile in study.profiles:
            for run in runs:
                study.overrides(run, profile)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: not in the expected form ({type(error).__name__}: {error})") from None
    return study


def resolve(values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> Params:
    """`values` (nested, as params.yaml) with dotted overrides laid over, checked. Raises BadInput."""
    resolved = deepcopy(dict(values))
    for dotted, value in overrides.items():
        *sections, key = dotted.split(".")
        section: Any = resolved
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            raise BadInput(f"{where}: {dotted}: params.yaml has no such parameter")
        section[key] = value
    return parse_params(resolved, where)


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
