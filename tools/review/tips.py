"""Where safety fell: what was measured to forget less, to try next."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.report.published import load_study
from stages.lib.report.tried import what_to_try
from tools.review.comparison import Comparison
from tools.review.gate import Ruling


def to_try(comparison: Comparison, found: Sequence[Ruling]) -> dict[str, Any]:
    """Where safety fell by evidence, what was measured to help a model of the head's size, by the results that are
    checked out; else nothing."""
    safety = comparison.measures.get("safety")
    fell = safety and safety.verdict == "worse"
    if not fell and not any(each.rule == "safety" and each.verdict == "broken" for each in found):
        return {}
    try:
        params = parse_params(nested(comparison.after.params), comparison.after.name)
    except BadInput:  # of other code, which knew other parameters
        return {}
    return what_to_try(load_study(), params)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by dotted key as `flat` made them, nested again."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *sections, key = name.split(".")
        inner = found
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return found
