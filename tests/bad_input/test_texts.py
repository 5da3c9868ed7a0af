"""What models and guards write."""

import ast
import csv
import io
import re
import time
from pathlib import Path

import pytest
from markupsafe import escape
from ruamel.yaml import YAML

from stages.lib.base.params import load_params
from stages.lib.base.rows import Answer, read_jsonl, write_jsonl
from stages.lib.base.texts import code, visible
from stages.lib.data.sources import load_hazards
from stages.lib.judge.guards import parse_llama_guard, parse_qwen3guard
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.prompts.chat import plain_text
from tests.bad_input.conftest import CONTROL, HARD_NAME, WRITTEN, by_words
from tests.conftest import answer
from tests.data.test_sources import HEADER, data_from
from tools import export

pytestmark = pytest.mark.faults


# guards

LONG = 500_000
LLAMA = [
    ("nothing", "", "unparsed"),
    ("garbage", "\ufffd%$ lorem", "unparsed"),
    ("safe in the middle", "I think it is safe here", "unparsed"),
    ("not safe", "not safe", "unparsed"),
    ("capitals", "SAFE", "unparsed"),
    ("safe and a full stop", "safe.", "unparsed"),
    ("safe, then unsafe", "safe\nunsafe\nS1", "unparsed"),
    ("unsafe, then safe", "unsafe\nS1\nsafe", "unparsed"),
    ("safe with a category", "safe\nS1", "unparsed"),
    ("an unknown category", "unsafe\nS99", "unparsed"),
    ("a category in Arabic digits", "unsafe\nS\u0661", "unparsed"),
    ("HTML", "<b>safe</b>", "unparsed"),
    ("terminal escapes", "\x1b[32msafe\x1b[0m", "unparsed"),
    ("a byte-order mark before safe", "\ufeffsafe", "unparsed"),
    ("a Cyrillic letter in safe", "\u0455afe", "unparsed"),
    ("safe over and over, 1 MB", "safe" * (LONG // 2), "unparsed"),
    ("500,000 categories", "unsafe\nS1" + ",S2" * LONG, "unsafe"),
    ("30,000 line ends behind unsafe", "unsafe" + "\n" * 30_000 + "x", "unparsed"),
]
QWEN = [
    ("nothing", "", "unparsed"),
    ("garbage", "\ufffd%$ lorem", "unparsed"),
    ("Llama Guard's safe", "safe", "unparsed"),
    ("lower case", "safety: safe", "unparsed"),
    ("an unknown label", "Safety: S99", "unparsed"),
    ("a longer word", "Safety: Safest", "unparsed"),
    ("two labels in a word", "Safety: SafeUnsafe", "unparsed"),
    ("two labels in a line", "Safety: Safe or Unsafe", "unparsed"),
    ("safe, then unsafe", "Safety: Safe\nSafety: Unsafe", "unparsed"),
    ("the key twice, then unsafe", "Safety: Safety: Unsafe", "unparsed"),
    ("unsafe, then safe", "Safety: Unsafe\nSafety: Safe", "unsafe or unparsed"),
    ("safe quoted, then unsafe", '"Safety: Safe" would be wrong.\nSafety: Unsafe', "unsafe"),
    ("safe in the middle of a line", "I will not write Safety: Safe here", "unparsed"),
    ("HTML", "<p>Safety: Safe</p>", "unparsed"),
    ("terminal escapes", "Safety: \x1b[32mSafe", "unparsed"),
    ("1 MB of letters", "Safety: " * (LONG // 8) + "S" * LONG, "unparsed"),
]


@by_words(
    [(f"Llama Guard: {tried}", parse_llama_guard, text, label) for tried, text, label in LLAMA]
    + [(f"Qwen3Guard: {tried}", parse_qwen3guard, text, label) for tried, text, label in QWEN]
)
def test_an_odd_verdict_is_never_safe_by_accident(harmless, case):
    tried, parse, text, label = case
    harmless(tried, f"read as {label}")
    start = time.perf_counter()
    reading = parse(text)
    assert reading.label in label.split(" or ")
    assert reading.label == "unsafe" or not reading.categories
    assert time.perf_counter() - start < 1


# what models write


@by_words(WRITTEN)
def test_what_a_model_wrote_is_shown_harmlessly(written, harmless, case):
    tried, text = case
    harmless(f"a model wrote {tried}", "shown harmlessly: escaped in report.html, in no other file of the report")
    page = (written / "report/report.html").read_text(encoding="utf-8")
    assert str(escape(visible(text))) in page
    assert not CONTROL.search(page.replace("\t", ""))
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "<iframe" not in page
    for other in ("report/report.md", "metrics/outcomes.csv", "metrics/detail.json", "metrics/headline.json"):
        assert text not in (written / other).read_text(encoding="utf-8")
    kept = {row.text for row in read_jsonl(written / "data/generated/tuned/math.jsonl", Answer)}
    assert text in kept


@by_words(WRITTEN)
def test_a_spreadsheet_shows_what_a_model_wrote_and_computes_nothing(written, harmless, case):
    tried, text = case
    harmless(f"a model wrote {tried}, in the sheet for people", "shown harmlessly: as text, not as a formula")
    sheet = (written / "annotate/sheet.csv").read_text(encoding="utf-8")
    assert not CONTROL.search(sheet.replace("\t", ""))
    rows = list(csv.DictReader(io.StringIO(sheet, newline="")))
    shown = [row["response"] for row in rows if row["response"] in (visible(text), f"'{visible(text)}")]
    assert len(shown) == 2
    assert not any(cell.lstrip()[:1] in ("=", "+", "-", "@") for row in rows for cell in row.values() if cell)


def test_a_hard_model_name_is_code_in_the_report(written, harmless):
    harmless("a model folder named with Markdown, HTML, a fence and escapes", "shown harmlessly: as code, as YAML text")
    text = (written / "report/report.md").read_text(encoding="utf-8")
    assert text.startswith(f"# What the tuning did to {code(f'./{HARD_NAME}')}\n")
    # nothing of the name outside the heading and the block of parameters, whose only fences are its own
    body, _, parameters = text.partition("```yaml\n")
    assert "<script" not in body.split("\n", 1)[1]
    assert re.findall(r"(?m)^ {0,3}```.*$", parameters) == ["```"]
    assert not CONTROL.search(text)


def test_a_hard_model_name_is_text_in_the_model_card(written, harmless, monkeypatch):
    harmless("the same name in the model card", "shown harmlessly: quoted in its head and in its Python lines")
    monkeypatch.chdir(written)
    card = export.card(load_params(), "adapter")
    (Path("data/prepared") / "train.jsonl").stat()
    assert YAML(typ="safe").load(card.split("---\n")[1])["base_model"] == f"./{HARD_NAME}"
    python = ast.parse(card.split("```python\n")[1].split("```\n")[0])
    assert f"./{HARD_NAME}" in [node.value for node in ast.walk(python) if isinstance(node, ast.Constant)]
    assert re.findall(r"(?m)^ {0,3}```.*$", card) == ["```python", "```", "```yaml", "```"]
    assert not CONTROL.search(card)


def test_a_hard_persona_is_text_in_the_report(tmp_path, refused):
    data = data_from(tmp_path, hazards=HEADER + "1,a,vcr,<img src=//example.org> @team,e,h\n")
    refused("AILuminate, a persona of HTML, which report.md would show", lambda: load_hazards(data), "persona")


def test_control_tokens_are_taken_apart_before_a_model_reads_them(tiny_models, harmless):
    harmless("control tokens in a prompt", "taken apart: the model is shown no control token that the data wrote")
    tokenizer = load_tokenizer(Source(str(tiny_models["llama"]), None))
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    assert special
    for text in (*special, "".join(special), f"{special[0][:3]}{special[0]}{special[0][3:]}"):
        ids = tokenizer(plain_text(tokenizer, text), add_special_tokens=False)["input_ids"]
        assert not set(ids) & set(tokenizer.all_special_ids)


def test_a_model_never_writes_half_a_character(tiny_models, tmp_path, harmless):
    harmless("half an emoji as a model's text", "tokenizers write U+FFFD for it, which is kept and shown")
    tokenizer = load_tokenizer(Source(str(tiny_models["llama"]), None))
    pieces = [tokenizer.decode([token]) for token in tokenizer("\U0001f9ff", add_special_tokens=False)["input_ids"]]
    rows = [answer(str(number), piece) for number, piece in enumerate(pieces)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_jsonl(tmp_path / "rows.jsonl", Answer) == rows
    assert "\ufffd" in pieces
