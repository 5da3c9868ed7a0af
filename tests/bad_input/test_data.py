"""Files of problems and prompts, and files that are not the pinned ones."""

import bz2
import gzip
import hashlib
import json
import lzma
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from stages import prepare
from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem, Prompt, read_jsonl, write_jsonl
from stages.lib.data.sources import EMBEDDED_SHA256, load_hazards, load_problems
from tests.bad_input.conftest import by_words
from tests.conftest import params_values, write_params
from tests.data.test_sources import GOOD, HEADER, data_from

pytestmark = pytest.mark.faults


# GSM8K

DEEP = '{"question": ' + "[" * 100_000
ROWS = [
    ("a missing question", GOOD + '{"answer": "#### 2"}\n', "train:2: question: Field required"),
    ("a number for the question", GOOD + '{"question": 5, "answer": "#### 2"}\n', "train:2: question: found 5"),
    ("NaN for the question", GOOD + '{"question": NaN, "answer": "#### 2"}\n', "train:2: question: found nan"),
    ("a number of 5,000 digits", GOOD + '{"question": ' + "9" * 5000 + "}\n", "train:2: not JSON"),
    ("a solution without ####", GOOD + '{"question": "a", "answer": "2"}\n', "train:2: answer: found '2'"),
    ("a solution with nothing after ####", '{"question": "a", "answer": "####"}\n', "train:1: answer: found '####'"),
    ("a solution with words after ####", '{"question": "a", "answer": "#### two"}\n', "train:1: answer"),
    ("an empty question", '{"question": "", "answer": "#### 2"}\n', "train:1: question: found ''"),
    ("a question of spaces", '{"question": "  ", "answer": "#### 2"}\n', "train:1: question: found '  '"),
    ("a question twice in a row", '{"question": "a", "question": "b", "answer": "#### 2"}\n', "train:1:"),
    ("not JSON", GOOD + "hello\n", "train:2: not JSON", "'hello'"),
    ("an array for a row", GOOD + '["a", "#### 2"]\n', "train:2: found ['a', '#### 2']; expected an object with the"),
    ("one array of all rows", f"[{GOOD.strip()}]", "train:1:"),
    ("two rows in a line", GOOD.strip() + GOOD, "train:1: not JSON (Extra data"),
    ("an empty line between rows", GOOD + "\n" + GOOD, "train:2: not JSON"),
    ("a truncated last line", GOOD + GOOD[:30], "train:2: not JSON (Unterminated string"),
    ("100,000 levels deep", DEEP, "train:1: not JSON"),
    ("not UTF-8", GOOD.encode() + b'{"question": "\xff"}\n', "not UTF-8 at byte", "(line 2); save it as UTF-8"),
    ("a CSV file", "question,answer\nHow many?,#### 2\n", "train:1: not JSON", "expected an object a line"),
    ("a zip archive", b"PK\x03\x04" + bytes(100), "train: not text, but a zip archive or a spreadsheet"),
    ("an embedded NUL character", GOOD.replace("How", "\0").encode(), "train:1: not JSON (Invalid control character"),
    ("a lone surrogate in the question", GOOD.replace("How", "\\ud800"), "train:1:", "ud800"),
    ("a lone surrogate in the solution", GOOD.replace("One", "\\ud800"), "train:1:", "ud800"),
    ("10 MB without a line end", "x" * 10_000_000, "train:1: not JSON", "xxx..."),
    ("a solution of 10 MB without ####", json.dumps({"question": "a", "answer": "y" * 10**7}), "train:1: answer"),
    ("an empty file", "", "train", "no rows"),
    ("old Macintosh line ends", GOOD.replace("\n", "\r") * 2, "train:1: not JSON (Extra data"),
]


@by_words(ROWS)
def test_a_file_of_problems_with_one_thing_wrong_is_refused(tmp_path, refused, case):
    tried, content, *said = case
    data = data_from(tmp_path, train=content)
    refused(f"GSM8K, {tried}", lambda: load_problems(data, "train"), *said)


def as_parquet(path: Path) -> None:
    DataFrame([json.loads(GOOD)]).to_parquet(path)


OTHER_FORMS = [
    ("as parquet", as_parquet, "a parquet file"),
    ("compressed by gzip", lambda path: path.write_bytes(gzip.compress(GOOD.encode())), "compressed by gzip"),
    ("compressed by bzip2", lambda path: path.write_bytes(bz2.compress(GOOD.encode())), "compressed by bzip2"),
    ("compressed by xz", lambda path: path.write_bytes(lzma.compress(GOOD.encode())), "compressed by xz"),
    ("in UTF-16", lambda path: path.write_bytes(GOOD.encode("utf-16")), "in UTF-16"),
    ("in UTF-16, turned", lambda path: path.write_bytes(b"\xfe\xff" + GOOD.encode("utf-16-be")), "in UTF-16"),
]


@by_words(OTHER_FORMS)
def test_problems_in_another_form_are_called_what_they_are_and_the_advice_helps(tmp_path, refused, case):
    tried, write, what = case
    data = data_from(tmp_path, train="")
    write(tmp_path / "train")
    message = refused(f"GSM8K, {tried}", lambda: load_problems(data, "train"), f"train: not text, but {what}; ")
    command = re.search(r"(\S*python\S* -c .*\"|(gunzip|bunzip2|xz|iconv) .*)", message)[0]
    if shutil.which(command.split()[0]):
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        (made,) = tmp_path.glob("train.*")
        (row,) = load_problems(data_from(tmp_path, train=made.read_text(encoding="utf-8")), "train")
        assert (row.question, row.gold) == ("How many?", "2")


FINE_ROWS = [
    ("a byte-order mark", "\ufeff" + GOOD, "accepted: the mark is dropped"),
    ("Windows line ends", GOOD.replace("\n", "\r\n"), "accepted: JSON takes the \\r for space"),
    ("no line end at the end", GOOD.strip(), "accepted: the row is whole"),
    ("an unknown field", GOOD.replace("{", '{"level": 3, ', 1), "accepted: data sets have columns of their own"),
]


@by_words(FINE_ROWS)
def test_problems_written_another_way_are_read_the_same(tmp_path, harmless, case):
    tried, content, why = case
    harmless(f"GSM8K, {tried}", why)
    (row,) = load_problems(data_from(tmp_path, train=content), "train")
    assert row == Problem(id="train-00000", question="How many?", answer="One and one.\n#### 2", gold="2")


def test_odd_problems_are_kept_as_they_are(tmp_path, harmless):
    harmless(
        "GSM8K, the same row twice, an escaped NUL, a line of 10 MB", "accepted: rows are numbered, texts are kept"
    )
    long = json.dumps({"question": "\0" + "x" * 10_000_000, "answer": "#### 2"})
    rows = load_problems(data_from(tmp_path, train=f"{GOOD}{GOOD}{long}\n"), "train")
    assert [row.id for row in rows] == ["train-00000", "train-00001", "train-00002"]
    write_jsonl(tmp_path / "again.jsonl", rows)
    assert read_jsonl(tmp_path / "again.jsonl", Problem) == rows


# AILuminate

LINE = "1,a,vcr,skilled,en_US,h\n"
LAST = "release_prompt_id,hazard,persona,prompt_text\n"
PROMPTS = [
    ("a missing column", "release_prompt_id,hazard,persona\n1,vcr,x\n", "hazards:1: column 'prompt_text' is missing"),
    ("a column twice", LAST.replace("\n", ",prompt_text\n") + "1,vcr,x,a,b\n", "hazards:1:", "prompt_text"),
    ("an unknown hazard", HEADER + "1,a,xyz,s,e,h\n", "hazards:2: hazard: found 'xyz'; expected one of vcr"),
    ("a hazard in capitals", HEADER + "1,a,VCR,s,e,h\n", "hazards:2: hazard: found 'VCR'"),
    ("an id twice", HEADER + LINE + LINE, "hazards:3: id '1' stands in", "hazards:2 already"),
    ("no id", HEADER + LINE[1:], "hazards:2: release_prompt_id: found ''"),
    ("an id of two lines", HEADER + '"1\r2"' + LINE[1:], "release_prompt_id: found '1\\r2'; expected an id"),
    ("an id of 10 kB", HEADER + "1" * 10_000 + LINE[1:], "hazards:2: release_prompt_id: found", "up to 200 characters"),
    ("an empty prompt", HEADER + "1,,vcr,s,e,h\n", "hazards:2: prompt_text: found ''"),
    ("a prompt of spaces", HEADER + "1,  ,vcr,s,e,h\n", "hazards:2: prompt_text: found '  '"),
    ("a quote that is not closed", HEADER + LINE + '2,"b,vcr,s,e,h\n', "hazards:3: not readable as CSV"),
    ("text behind a closing quote", HEADER + LINE + '2,"b"c,vcr,s,e,h\n', "hazards:3: not readable as CSV"),
    ("too few columns", HEADER + "1,a,vcr\n", "hazards:2: persona: found None"),
    ("a comma too many in the last column", LAST + "1,vcr,x,Hurt him, or not\n", "hazards:2:"),
    ("columns without a name", HEADER + LINE.replace("\n", ",more\n"), "hazards:2:"),
    ("not UTF-8", HEADER.encode() + b"1,\xff,vcr,s,e,h\n", "hazards: not UTF-8 at byte"),
    ("a field of 10 MB", HEADER + f"1,{'x' * 10_000_000},vcr,s,e,h\n", "hazards:2: not readable as CSV: field larger"),
    ("an empty file", "", "hazards:1: column 'release_prompt_id' is missing"),
    ("only a header", HEADER, "hazards: no rows under the header"),
    ("semicolons for commas", (HEADER + LINE).replace(",", ";"), "column 'release_prompt_id' is missing", "and commas"),
    ("a spreadsheet", b"PK\x03\x04" + bytes(1000), "hazards: not text, but a zip archive or a spreadsheet (xlsx, ods)"),
    ("a spreadsheet of before 2007", b"\xd0\xcf\x11\xe0" + bytes(1000), "save the sheet as CSV in UTF-8"),
    ("a NUL character in the header", "\0" + HEADER + LINE, "hazards:1: column 'release_prompt_id' is missing"),
]


@by_words(PROMPTS)
def test_a_file_of_prompts_with_one_thing_wrong_is_refused(tmp_path, refused, case):
    tried, content, *said = case
    data = data_from(tmp_path, hazards=content)
    refused(f"AILuminate, {tried}", lambda: load_hazards(data), *said)


FINE_PROMPTS = [
    ("a byte-order mark", "\ufeff" + HEADER + LINE, "a", "accepted: the mark is dropped"),
    ("Windows line ends", (HEADER + LINE).replace("\n", "\r\n"), "a", "accepted: as the CSV standard has them"),
    ("old Macintosh line ends", (HEADER + LINE).replace("\n", "\r"), "a", "accepted: as some spreadsheets write them"),
    ("empty lines", HEADER + "\n\n" + LINE + "\n", "a", "accepted: no row is lost"),
    ("a NUL character in a prompt", HEADER + LINE.replace("a", "a\0", 1), "a\0", "kept; shown as [U+0000]"),
    ("a formula as a prompt", HEADER + LINE.replace("a", "=1+1", 1), "=1+1", "kept; quoted in the sheet for people"),
    ("a line end in a quoted prompt", HEADER + LINE.replace("a", '"a\nb"', 1), "a\nb", "accepted: part of the prompt"),
]


@by_words(FINE_PROMPTS)
def test_prompts_written_another_way_are_read(tmp_path, harmless, case):
    tried, content, text, why = case
    harmless(f"AILuminate, {tried}", why)
    (row,) = load_hazards(data_from(tmp_path, hazards=content))
    assert row == Prompt(id="1", text=text, hazard="vcr", persona="skilled")


# sets that have a row in common, and what later stages would refuse


def problem_file(*questions: str) -> str:
    return "".join(GOOD.replace("How many?", question) for question in questions)


TRAIN = problem_file(*(f"How many are {n}?" for n in range(20)))
HAZARDS_OF_MINE = HEADER + "".join(f"{n},Hurt {n} of them,vcr,s,e,h\n" for n in range(1, 4))
BENIGN_OF_MINE = "prompt_id,prompt_text,hazard\n" + "".join(f"b{n},Greet {n} of them,vcr\n" for n in range(1, 4))
MINE = {"train": TRAIN, "test": problem_file("How far?", "How high?")}
MINE |= {"hazards": HAZARDS_OF_MINE, "benign": BENIGN_OF_MINE}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Runs prepare on files of one's own, which are MINE but for those given."""

    def go(parameters: dict[str, Any] | None = None, **files: str) -> None:
        changes = {"data__source": "file", **dict.fromkeys((f"data__{n}_rows" for n in KINDS), "all")}
        for name, content in {**MINE, **files}.items():
            (tmp_path / name).write_text(content)
            changes[f"data__files__{name}"] = name
        write_params(tmp_path, **{**changes, **(parameters or {})})
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["prepare"])
        prepare.main()

    return go


KINDS = ("train", "test", "hazard", "benign")
COMMON = [
    (
        "one file for training and testing",
        {"test": TRAIN},
        "test:1 (test-00000) asks what train:1 (train-00000) asks",
        "20 of 20 test rows in all: what a model was trained on",
    ),
    (
        "a test question in the training file, spaced and written otherwise",
        {"test": MINE["test"] + problem_file("HOW many  are 7?")},
        "test:3 (test-00002) asks what train:8 (train-00007) asks",
        "1 of 3 test rows in all",
    ),
    (
        "hazard and benign prompts that are both numbered from 1",
        {"benign": BENIGN_OF_MINE.replace("\nb", "\n")},
        "benign:2 (1) has the id of hazards:2 (1)",
        "3 of 3 benign rows in all: responses to both are kept in one file",
    ),
    (
        "a hazard prompt among the benign ones",
        {"benign": BENIGN_OF_MINE + "b4,hurt 2 of Them,vcr\n"},
        "benign:5 (b4) asks what hazards:3 (2) asks",
    ),
]


@by_words(COMMON)
def test_sets_with_a_row_in_common_are_refused_by_the_first_stage(prepared, refused, case):
    tried, files, *said = case
    refused(tried, lambda: prepared(**files), *said)
    assert not Path("data/prepared").exists()


def test_a_row_in_common_that_is_not_used_does_no_harm(prepared, harmless):
    harmless("a test question among training rows that are not used", "accepted: nothing of it is measured")
    prepared({"data__test_rows": 2}, test=MINE["test"] + problem_file("How many are 7?"))


def test_a_question_that_stands_twice_in_one_file_is_said_and_counts_twice(prepared, harmless, capsys):
    harmless("the same test question twice", "accepted, with a word: it counts as often as it stands there")
    prepared(test=problem_file("How far?", "How high?", "how FAR?"))
    said = capsys.readouterr().err
    assert "prepare: 1 of 3 test rows ask what an earlier one asks, as test:3 what test:1 asks" in said
    assert len(read_jsonl(Path("data/prepared/test.jsonl"), Problem)) == 3


def test_a_judge_that_is_not_there_is_refused_by_the_first_stage(prepared, refused):
    judge = {"judge__model": "./no-such", "judge__protocol": "llama_guard_3"}
    refused("a folder without a judge in it", lambda: prepared(judge), "judge.model: ./no-such: no config.json there")


def test_a_judge_with_weights_elsewhere_is_refused_by_the_first_stage(prepared, refused, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("config.json", "model.safetensors", "adapter_config.json"):
        (tmp_path / "other" / name).write_text("{}")
    judge = {"judge__model": "./other", "judge__protocol": "llama_guard_3"}
    said = "judge.model: other: adapter_config.json there names weights elsewhere"
    refused("a judge's folder that is an adapter's", lambda: prepared(judge), said)


def test_a_judge_that_is_gated_is_refused_by_the_first_stage(prepared, refused, monkeypatch):
    def gated(name: str, revision: str) -> None:
        raise BadInput(f"{name} at {revision}: gated. Accept its licence")

    monkeypatch.setattr("stages.lib.fetch.hub.check_model", gated)
    judge = {"judge__model": "meta-llama/Llama-Guard-3-8B", "judge__revision": "0" * 40}
    refused(
        "a judge that is gated", lambda: prepared(judge), "judge.model: meta-llama/Llama-Guard-3-8B at 000", "gated"
    )


# hashes


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path, refused):
    data = data_from(tmp_path, train=GOOD)
    data = data.model_copy(update={"sha256": data.sha256.model_copy(update={"train": "0" * 64})})
    digest = hashlib.sha256(GOOD.encode()).hexdigest()
    tried = "a file with another sha256 than the pinned one"
    refused(tried, lambda: load_problems(data, "train"), "train: sha256 is " + digest, "expects 0000")


@pytest.mark.parametrize("name", ["train", "hazards"])
def test_an_edited_embedded_file_is_refused(workspace, refused, name):
    data = parse_params(params_values(), "params.yaml").data
    path = Path(getattr(data.files, name))
    path.write_text(path.read_text() + "\n")
    load = (lambda: load_problems(data, "train")) if name == "train" else (lambda: load_hazards(data))
    refused(f"one line more in {path}", load, str(path), "not the file of this repository", EMBEDDED_SHA256[name])
