"""What is kept of a run in metrics/runs/: NAME.json with its headline, cost, parameters and what else its experiment
found, NAME.csv with its outcomes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.lib.base.files import write_json, write_text
from stages.lib.base.yaml_files import parse_yaml
from tools.commands import dvcs_library, git

TUNED, TRAINING = "models/tuned", "training.json"


@dataclass(frozen=True)
class Found:
    """What an experiment found. `headline`, `cost`, and of the detail `moved` (how far the model has moved), as in
    metrics/; `training`: models/tuned/training.json, nothing where the untuned model was not asked, None where DVC's
    cache does not have that model; `params`: nested; `outcomes`: metrics/outcomes.csv."""

    headline: Mapping[str, Any]
    cost: Sequence[Mapping[str, Any]]
    moved: Sequence[Mapping[str, float]]
    training: Mapping[str, float] | None
    params: Mapping[str, Any]
    outcomes: str


def read_experiment(experiment: str) -> Found:
    """What is kept of an experiment that is here, from git and, for `training`, DVC's cache."""
    texts = {name: git("show", f"{experiment}:metrics/{name}.json") for name in ("headline", "cost", "detail")}
    values = {name: json.loads(text) for name, text in texts.items()}
    return Found(
        headline=values["headline"],
        cost=values["cost"],
        moved=values["detail"].get("moved", []),
        training=_training(git("rev-parse", experiment)),
        params=parse_yaml(git("show", f"{experiment}:params.yaml"), experiment),
        outcomes=git("show", f"{experiment}:metrics/outcomes.csv") + "\n",
    )


def write_kept(path: Path, run: str, profile: str, commit: str, found: Found) -> Path:
    """Write a result and, beside it, its outcomes; returns where these are."""
    result = {name: value for name, value in asdict(found).items() if name not in ("params", "outcomes")}
    write_json(path, {"run": run, "profile": profile, "commit": commit, **result, "params": found.params})
    outcomes = path.with_suffix(".csv")
    write_text(outcomes, found.outcomes)
    return outcomes


def _training(commit: str) -> dict[str, float] | None:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError

    with dvcs_library():
        files = DVCFileSystem(".", rev=commit)
        try:
            names = {path.rpartition("/")[2] for path in files.ls(TUNED, detail=False)}
            text = files.read_text(f"{TUNED}/{TRAINING}", encoding="utf-8") if TRAINING in names else "{}"
        except (OSError, DvcException, DataIndexDirError):
            return None
    return dict(json.loads(text))
