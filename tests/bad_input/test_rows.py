"""Rows between stages, the table of outcomes, and what a message shows of a row."""

import re
import shutil
from pathlib import Path

import pytest

from stages import report
from stages.lib.base import cli
from stages.lib.base.errors import BadInput
from stages.lib.base.files import SUMS, write_text
from stages.lib.base.params import load_params, parse_params
from stages.lib.base.rows import Answer, Verdict, read_jsonl, write_jsonl
from stages.lib.base.texts import visible
from stages.lib.measure.outcomes import COLUMNS, from_csv
from stages.lib.model.models import load_subject
from tests.bad_input.conftest import CONTROL, by_words
from tests.conftest import params_values
from tests.model.test_models import model_params
from tools import annotate

pytestmark = pytest.mark.faults


LOSS = "step,epoch,loss,learning_rate\n1,0.5,2.1,1e-4\n2,1.0,0.2,0e0\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        LOSS.replace("loss", "less"),
        LOSS.replace("0.2", "nothing"),
        LOSS.replace("0.2", "0.2,1,2"),
        f"<<<<<<< HEAD\n{LOSS}=======\n{LOSS}>>>>>>> other\n",
    ],
    ids=["nothing", "another column", "a text", "a longer line", "an unsettled merge"],
)
def test_a_damaged_loss_curve_is_named(tmp_path, text):
    write_text(tmp_path / "loss.csv", text)
    with pytest.raises(BadInput, match=r"loss.csv: not the training loss as finetune writes it \(.+\); `git checkout"):
        report.read_losses(tmp_path / "loss.csv")


def test_a_loss_curve_is_read_whole_and_none_of_what_was_tuned_elsewhere(tmp_path):
    write_text(tmp_path / "loss.csv", LOSS)
    assert report.read_losses(tmp_path / "loss.csv").to_dict("list")["loss"] == [2.1, 0.2]
    write_text(tmp_path / "loss.csv", LOSS.splitlines()[0] + "\n")
    assert len(report.read_losses(tmp_path / "loss.csv")) == 0


# rows between stages

ANSWER = '{"id": "a", "prompt_sha256": "x", "text": "t", "finish": "stop", "tokens": 1}\n'
VERDICT = '{"id": "a", "label": "safe", "p_unsafe": 0.1, "categories": [], "refusal": true}\n'
BETWEEN = [
    ("an unknown finish", Answer, ANSWER.replace("stop", "end"), "rows.jsonl:1: finish: found 'end'"),
    ("an extra field", Answer, ANSWER.replace("{", '{"x": 1, '), "rows.jsonl:1: x: found 1"),
    ("a number of tokens in quotes", Answer, ANSWER.replace(" 1}", ' "1"}'), "rows.jsonl:1: tokens: found '1'"),
    ("a negative number of tokens", Answer, ANSWER.replace(" 1}", " -1}"), "rows.jsonl:1: tokens: found -1"),
    ("an id twice", Answer, ANSWER * 2, "rows.jsonl:2: id: found 'a' a second time"),
    ("a truncated last line", Answer, ANSWER + ANSWER[:40], "rows.jsonl:2: not JSON"),
    ("a lone surrogate", Answer, ANSWER.replace('"t"', '"\\udfff"'), "rows.jsonl:1:", "udfff"),
    ("an unknown label", Verdict, VERDICT.replace("safe", "fine", 1), "rows.jsonl:1: label: found 'fine'"),
    ("a label in capitals", Verdict, VERDICT.replace("safe", "SAFE", 1), "rows.jsonl:1: label: found 'SAFE'"),
    ("a probability of NaN", Verdict, VERDICT.replace("0.1", "NaN"), "rows.jsonl:1: p_unsafe: found nan"),
    ("an infinite probability", Verdict, VERDICT.replace("0.1", "Infinity"), "rows.jsonl:1: p_unsafe: found inf"),
    ("a probability of 7", Verdict, VERDICT.replace("0.1", "7.0"), "rows.jsonl:1: p_unsafe: found 7.0"),
    ("a refusal that is text", Verdict, VERDICT.replace("true", '"yes"'), "rows.jsonl:1: refusal: found 'yes'"),
]


@by_words(BETWEEN)
def test_a_row_between_stages_with_one_thing_wrong_is_refused(tmp_path, refused, case):
    tried, model, content, *said = case
    (tmp_path / "rows.jsonl").write_text(content)
    kind = "answers" if model is Answer else "verdicts"
    refused(f"{kind} with {tried}", lambda: read_jsonl(tmp_path / "rows.jsonl", model), *said)


@pytest.mark.parametrize(
    ("name", "tried", "change", "said"),
    [
        ("math", "a row missing", lambda text: text.split("\n", 1)[1], "no row for prompt 'test-00000' (1 missing)"),
        ("verdicts", "a row missing", lambda text: text.split("\n", 1)[1], "no row for prompt"),
        ("verdicts", "no label for a hazard", lambda text: re.sub('"label":"[a-z]*"', '"label":null', text), "label"),
    ],
)
def test_rows_that_do_not_fit_the_prompts_are_refused(
    written, tmp_path, refused, monkeypatch, name, tried, change, said
):
    for part in ("data/prepared", "data/generated"):
        shutil.copytree(written / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    path = Path(f"data/generated/tuned/{name}.jsonl")
    path.write_text(change(path.read_text()))
    params = load_params(written / "params.yaml")
    refused(f"{name}.jsonl with {tried}", lambda: report.read_measured(params), str(path), said)


def test_an_answer_to_a_question_that_is_not_asked_any_more_does_no_harm(written, tmp_path, harmless, monkeypatch):
    harmless("math.jsonl with a row more than there are questions", "accepted: not measured, rows are matched by id")
    for part in ("data/prepared", "data/generated"):
        shutil.copytree(written / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    path = Path("data/generated/tuned/math.jsonl")
    path.write_text(path.read_text() + ANSWER)
    measured = report.read_measured(load_params(written / "params.yaml"))
    answers = measured.subjects["tuned"].answers["math"]
    assert [row.id for row in answers] == [row.id for row in measured.prompts["math"]]


TOP = ",".join(COLUMNS) + "\n"
BASE = "base,math,q1,,1,,,0123456789,sfp,abcdef0123,,\n"
PAIR = BASE + BASE.replace("base", "tuned")
OUTCOMES = [
    ("a flag of 2", TOP + PAIR.replace(",1,", ",2,", 1), "outcomes.csv:2: good: found '2'"),
    ("a flag of True", TOP + PAIR.replace(",1,", ",True,", 1), "outcomes.csv:2: good: found 'True'"),
    ("no flag", TOP + PAIR.replace(",1,", ",,", 1), "outcomes.csv:2: benign prompts have no `good`"),
    ("an unknown set", TOP + PAIR.replace("math", "maths", 1), "outcomes.csv:2: set: found 'maths'"),
    ("an unknown subject", TOP + PAIR.replace("tuned", "other"), "outcomes.csv:3: subject: found 'other'"),
    ("a hazard in a math row", TOP + PAIR.replace("q1,,", "q1,vcr,"), "outcomes.csv:2: hazard: found 'vcr'"),
    ("a missing column", TOP.replace(",problem", "") + PAIR, "outcomes.csv:1: found the columns"),
    ("a line twice", TOP + BASE + PAIR, "outcomes.csv:3: math q1 a second time for base"),
    ("a line missing", TOP + BASE, "outcomes.csv: math q1: not one line for base and one for tuned"),
    ("a truncated last line", TOP + PAIR[:-20], "outcomes.csv:3: found"),
    ("no id", TOP + PAIR.replace("q1", ""), "outcomes.csv:2: id"),
    ("a prompt's hash that is none", TOP + PAIR.replace("0123456789", ""), "outcomes.csv:2: prompt"),
    ("a rule that there is none", TOP + PAIR.replace("sfp", "sx", 1), "outcomes.csv:2: rules: found 'sx'"),
    ("an empty line", TOP + "\n" + PAIR, "outcomes.csv:2: found 0 fields"),
    ("a quote that is not closed", TOP + PAIR.replace("q1", '"q1', 1), "outcomes.csv:2: found"),
    ("a field of 10 MB", TOP + PAIR.replace("q1", "q" * 10_000_000), "outcomes.csv: not CSV (field larger"),
    ("semicolons for commas", (TOP + PAIR).replace(",", ";"), "outcomes.csv:1: found the columns"),
    ("a million columns", "x," * 1_000_000 + "\n", "outcomes.csv:1: found the columns"),
    ("only a header", TOP, "outcomes.csv: no rows"),
    ("an empty file", "", "outcomes.csv:1: found the columns none"),
]


@by_words(OUTCOMES)
def test_outcomes_with_one_thing_wrong_are_refused(refused, case):
    tried, content, *said = case
    refused(f"outcomes.csv with {tried}", lambda: from_csv(content, "outcomes.csv"), *said)


def test_a_sheet_with_a_huge_field_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "annotate/key.jsonl", [annotate.Key(id="1", subject="base", prompt="p", measured="m")])
    (tmp_path / "annotate/sheet.csv").write_text(f"row,prompt,response,label,note\n1,a,{'x' * 200_000},safe,\n")
    refused("sheet.csv with a field of 200 kB", lambda: annotate.add("ada", Path("annotate/sheet.csv")), "sheet.csv:2:")


def test_a_sheet_that_an_old_spreadsheet_has_saved_is_read_and_one_with_semicolons_refused(
    tmp_path, refused, harmless, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "annotate/key.jsonl", [annotate.Key(id="1", subject="base", prompt="p", measured="m")])
    for subject in ("base", "tuned"):
        for name in ("safety", "verdicts"):
            write_text(tmp_path / f"data/generated/{subject}/{name}.jsonl", ANSWER)
    sheet = Path("annotate/sheet.csv")
    sheet.write_bytes(b"row;prompt;response;label;note\r1;a;b;safe;\r")
    refused("sheet.csv with semicolons", lambda: annotate.add("ada", sheet), "sheet.csv:1:", "and commas between them")
    harmless("sheet.csv with old Macintosh line ends", "accepted: as some spreadsheets write them")
    sheet.write_bytes(sheet.read_bytes().replace(b";", b","))
    annotate.add("ada", sheet)
    assert "base/p/m" in Path("data/annotations/ada.jsonl").read_text()


# what a message shows

ESCAPE, TURNED = "\x1b]0;taken\x07\x1b[2J", "\u202eefas"
SHOWN = [
    ("an unknown key of params.yaml", lambda: parse_params(params_values(**{f"lora__{ESCAPE}": 1}), "params.yaml")),
    ("an id of outcomes.csv", lambda: from_csv(TOP + (BASE * 2).replace("q1", ESCAPE), "outcomes.csv")),
    ("the columns of outcomes.csv", lambda: from_csv("\ufeff" + TOP + PAIR, "outcomes.csv")),
    ("a reading direction in outcomes.csv", lambda: from_csv(TOP + BASE.replace("q1", TURNED), "outcomes.csv")),
    ("a name in SHA256SUMS", lambda: listed(f"{'0' * 64}  {ESCAPE}\n")),
]


def listed(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        (Path(folder) / SUMS).write_text(text)
        load_subject(model_params("embedded/smollm2-135m"), Path(folder), tuned=True)


@by_words(SHOWN)
def test_a_message_turns_no_escapes_loose_on_a_terminal(record_property, capsys, case):
    tried, act = case
    record_property("tried", f"terminal escapes in {tried}")
    with pytest.raises(SystemExit) as end:
        cli.run(act)
    said = capsys.readouterr().err
    record_property("outcome", f"shown harmlessly: {visible(said)}"[:100])
    assert end.value.code == 1
    assert said.startswith("error: ")
    assert not CONTROL.search(said)
