"""dvc.lock: what DVC recorded of each stage when it last ran."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.yaml_files import parse_yaml

LOCK = Path("dvc.lock")


def parse_lock(text: str, where: str) -> dict[str, Any]:
    """The values of a dvc.lock. Raises BadInput naming where if it is none."""
    lock = parse_yaml(text, where)
    if not isinstance(lock, dict) or not isinstance(lock.get("stages"), dict):
        raise BadInput(f"{where}: no dvc.lock, for it names no stages")
    return lock


def recorded(lock: Mapping[str, Any], *kinds: str) -> dict[str, str]:
    """The md5 of every path that its stages read (`deps`) or wrote (`outs`), as asked for."""
    stages = lock["stages"].values()
    entries = [entry for stage in stages for kind in kinds for entry in stage.get(kind, [])]
    return {entry["path"]: entry.get("md5", "") for entry in entries}
