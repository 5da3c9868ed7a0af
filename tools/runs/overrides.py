"""Other parameters laid over the ten runs' own: `-S` of `run` and `submit`, and how they are told to DVC."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ruamel.yaml import YAML

from stages.lib.base.errors import BadInput
from stages.lib.report.published import Study


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `name=value` settings by name. Raises BadInput if one is none."""
    laid = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found:
            raise BadInput(f"-S {setting}: expected a parameter and its value, such as data.train_rows=512")
        laid[name] = YAML(typ="safe").load(value)
    return laid


def with_overrides(study: Study, settings: Sequence[str]) -> Study:
    """The study with `name=value` settings laid over every run's parameters. Raises BadInput if one is none."""
    laid = parse_settings(settings)
    return replace(study, runs=tuple(replace(each, overrides={**each.overrides, **laid}) for each in study.runs))


def override(name: str, value: Any) -> str:
    """A parameter in the grammar of `dvc exp run -S`: its value is JSON, with text in single quotes. `++`: DVC takes a
    set of one's own (sets.NAME), of a name that params.yaml does not have, for nothing less."""
    new = "++" if name.startswith("sets.") else ""
    return f"{new}{name}=" + (f"'{value}'" if isinstance(value, str) else json.dumps(value))
