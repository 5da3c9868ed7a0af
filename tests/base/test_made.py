"""How answers were made is written beside them, read back or refused, and compared in words."""

import json

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.made import NO_MODEL, Made, differences, made_file, read_made, write_made
from tests.conftest import MADE


@pytest.mark.parametrize("made", [MADE, NO_MODEL])
def test_what_is_written_beside_the_rows_is_read_back(tmp_path, made):
    rows = tmp_path / "base" / "math.jsonl"
    write_made(rows, made)
    assert made_file(rows) == tmp_path / "base" / "math.made.json"
    assert read_made(rows) == made


def test_what_is_missing_or_not_as_it_was_written_is_refused_by_name(tmp_path):
    rows = tmp_path / "math.jsonl"
    with pytest.raises(BadInput, match=r"math\.made\.json: no such file"):
        read_made(rows)
    for text, said in (
        ("{", "not JSON"),
        ("[]", "expected an object with the fields model, revision"),
        (json.dumps({**MADE.model_dump(), "dtype": 16}), "dtype: found 16"),
        (json.dumps({**MADE.model_dump(), "more": 1}), "more: found 1"),
        (json.dumps({key: value for key, value in MADE.model_dump().items() if key != "engine"}), "engine: "),
    ):
        made_file(rows).write_text(text)
        with pytest.raises(BadInput, match=rf"math\.made\.json: .*{said}"):
            read_made(rows)


DIFFERENT = [
    ({}, [], []),
    ({"tuning": "f" * 64}, [], []),  # the untuned model and the tuned one
    ({"content": "a" * 64}, ["the model's files (cccccccc, aaaaaaaa)"], []),
    ({"template": "a" * 64, "rendering": "b" * 64}, ["the chat template (", "what the chat template renders ("], []),
    ({"quantization": "none"}, ["quantization (nf4, none)"], []),
    ({"dtype": "float32"}, ["the dtype of the computation (bfloat16, float32)"], []),
    ({"engine": "shared-prefix 2"}, ["the engine (shared-prefix 1, shared-prefix 2)"], []),
    ({"model": "./m", "device": "NVIDIA H200"}, [], ["the model's name (embedded/smollm2-135m, ./m)", "the device ("]),
    ({"revision": "a" * 40}, [], [f"its revision (none, {'a' * 40})"]),
    ({"libraries": {"torch": "2.13.0", "peft": "1"}}, [], ["peft (none, 1)", "transformers (5.23.0, none)"]),
]


@pytest.mark.parametrize(("changes", "incomparable", "noted"), DIFFERENT)
def test_what_makes_answers_incomparable_is_told_from_what_is_worth_a_word(changes, incomparable, noted):
    found = differences(MADE, MADE.model_copy(update=changes))
    for said, expected in ((found.incomparable, incomparable), (found.noted, noted)):
        assert len(said) == len(expected)
        assert all(one.startswith(words) for one, words in zip(said, expected, strict=True))


def test_every_field_is_compared_but_the_tuning_and_what_a_server_calls_it():
    other = Made(**{**dict.fromkeys(Made.model_fields, "x"), "libraries": {"torch": "x"}})
    found = differences(NO_MODEL, other)
    assert len(found.incomparable) + len(found.noted) == len(Made.model_fields) - 2  # base and tuned, by two names
