"""Other parameters laid over the runs' own: `-S` of `run` and `submit`."""

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
    runs, ways = (
        tuple(replace(each, overrides={**each.overrides, **laid}) for each in of) for of in (study.runs, study.ways)
    )
    return replace(study, runs=runs, ways=ways)
