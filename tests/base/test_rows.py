"""Rows written are read back as they were, whatever text a model wrote; files appear whole or not at all."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.lib.base.errors import BadInput
from stages.lib.base.files import rounded, write_json, write_text
from stages.lib.base.rows import Answer, read_jsonl, write_jsonl

# every character that JSON can carry in UTF-8: line separators, control characters and emoji, but no lone surrogates
texts = st.text(st.characters(exclude_categories=["Cs"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=5))
def test_any_text_comes_back_as_it_was(tmp_path, written):
    rows = [Answer(id=str(n), prompt_sha256="x", text=t, finish="stop", tokens=1) for n, t in enumerate(written)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl", Answer) == rows


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path):
    rows = [Answer(id="1", prompt_sha256="x", text="a\u2028b\u2029c\x85d", finish="stop", tokens=1)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl", Answer) == rows


@pytest.mark.parametrize("content", ["[" * 100_000, "nan", "{", "\n", ""])
def test_what_is_not_rows_is_refused(tmp_path, content):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(BadInput, match=r"rows\.jsonl"):
        read_jsonl(tmp_path / "rows.jsonl", Answer)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.txt", float("nan"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_json_keeps_small_numbers_and_metrics_are_rounded_by_digits(tmp_path):
    write_json(tmp_path / "params.json", {"learning_rate": 3e-7})
    assert (tmp_path / "params.json").read_text() == '{\n  "learning_rate": 3e-07\n}\n'
    assert rounded({"p": [2.38418579e-07, 1 / 3]}) == {"p": [2.38419e-07, 0.333333]}
