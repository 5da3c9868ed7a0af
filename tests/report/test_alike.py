"""Base and tuned are compared only where they were asked the same, and answered and were judged in the same way."""

from dataclasses import replace
from datetime import date

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.report import check_alike
from tests.conftest import MADE
from tests.measure.test_metrics import BASE, MEASURED, TUNED

FILES = ("math.jsonl", "safety.jsonl", "verdicts.jsonl")
ALIKE = {name: dict.fromkeys(FILES, MADE) for name in ("base", "tuned")}


def asked_on(day: date, subject):
    """A subject's answers to prompts whose template writes the day."""
    written = {"prompt_sha256": sha256_text(f"Today is {day}. q")}
    return replace(
        subject,
        answers={**subject.answers, "math": [row.model_copy(update=written) for row in subject.answers["math"]]},
    )


def test_what_was_asked_and_made_alike_is_compared():
    check_alike(MEASURED, ALIKE)


def test_prompts_rendered_on_another_day_are_refused():
    base, tuned = asked_on(date(2026, 1, 1), BASE), asked_on(date(2026, 1, 2), TUNED)
    with pytest.raises(BadInput, match="^math.jsonl: 4 prompts, 'm0' the first, rendered otherwise for base"):
        check_alike(replace(MEASURED, subjects={"base": base, "tuned": tuned}), ALIKE)


@pytest.mark.parametrize("file", FILES)
def test_other_weights_under_the_same_name_are_refused(file):
    other = {**ALIKE["tuned"], file: MADE.model_copy(update={"content": "f" * 64})}
    with pytest.raises(BadInput, match=f"^{file} of base and of tuned were not made alike: the model's files"):
        check_alike(MEASURED, {**ALIKE, "tuned": other})


@pytest.mark.parametrize("file", FILES)
def test_another_base_to_compare_with_has_other_weights_but_no_other_guard(file):
    made = MADE.model_copy(update={"content": "f" * 64, "template": "0" * 64})
    alike = {"base": {**ALIKE["base"], file: made}, "tuned": ALIKE["tuned"]}
    if file == "verdicts.jsonl":
        with pytest.raises(BadInput, match="were not made alike"):
            check_alike(MEASURED, alike, "./before")
    else:
        check_alike(MEASURED, alike, "./before")
        made = made.model_copy(update={"rendering": "1" * 64})
        with pytest.raises(BadInput, match="what the chat template renders"):
            check_alike(MEASURED, {**alike, "base": {**ALIKE["base"], file: made}}, "./before")
