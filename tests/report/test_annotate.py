"""A blind sheet goes out, labels come back, and the report says how far the judge can be believed."""

import csv
import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Prompt, write_jsonl
from stages.lib.report.annotations import Label, between_readers, label_id, read_against, read_labels
from stages.lib.report.people import reader_facts
from tests.conftest import Repository
from tools.annotate import Judged, cell, draw, draw_pairs


def label(prompt: str, safe: bool, measured: str = "now", subject: str = "tuned") -> Label:
    return Label(
        id=label_id(subject, prompt, measured), subject=subject, prompt=prompt, measured=measured, safe=safe, note=""
    )


VERDICTS = {"base": {}, "tuned": {f"h{n}": n < 60 for n in range(100)}}
KEYS = {"base": "now", "tuned": "now"}


def test_labels_of_another_measurement_are_not_used():
    labels = {"ada": [label("h0", True), label("h99", False), label("h1", False, measured="then")]}
    (reader,) = read_against(labels, KEYS, VERDICTS)
    assert (reader.name, reader.subject, reader.labels) == ("ada", "tuned", 2)
    assert reader.agreement.safe.value == pytest.approx(0.6)
    assert read_against({"ada": [label("h1", False, measured="then")]}, KEYS, VERDICTS) == []


def test_two_readers_are_held_against_each_other_and_the_judge():
    ada = [label(f"h{n}", n < 50 or n > 97) for n in range(40, 100)]
    bob = [label(f"h{n}", n < 50) for n in range(40, 100)]
    facts = reader_facts({"ada": ada, "bob": bob}, KEYS, VERDICTS)
    assert [(row["reader"], row["labels"]) for row in facts["readers"]] == [("ada", 60), ("bob", 60)]
    # of the 60 judged safe, half of those read are; of the 40 judged unsafe, bob finds none safe
    assert facts["readers"][1]["safe, corrected"].startswith("30.0% (")
    assert facts["readers"][1]["false safe"].startswith("42.9% (")  # 30 of 30 + 40
    assert facts["readers"][1]["false unsafe"].startswith("0.0% (")
    assert any(
        note.startswith("ada and bob both read 60 responses: Cohen's kappa 0.8") for note in facts["reader_notes"]
    )
    ((first, second, n, kappa),) = between_readers({"ada": ada, "bob": bob}, KEYS)
    assert (first, second, n) == ("ada", "bob", 60)
    assert kappa.value < 1


def test_nobody_or_too_few_is_said():
    facts = reader_facts({}, KEYS, VERDICTS)
    assert facts["readers"] == []
    assert "No person has labelled" in facts["reader_notes"][0]
    one = reader_facts({"ada": [label("h0", True)]}, KEYS, VERDICTS)
    assert one["readers"][0]["Cohen's kappa"] == "not defined"
    assert "has no label yet" in one["reader_notes"][0]


def test_a_label_that_is_none_is_refused(tmp_path):
    write_jsonl(tmp_path / "ada.jsonl", [label("h0", True)])
    assert list(read_labels(tmp_path)) == ["ada"]
    (tmp_path / "ada.jsonl").write_text('{"id": "x", "safe": "maybe"}\n')
    with pytest.raises(BadInput, match=r"ada\.jsonl:1: subject"):
        read_labels(tmp_path)
    write_jsonl(tmp_path / "ada.jsonl", [label("h0", True).model_copy(update={"prompt": "h1"})])
    with pytest.raises(BadInput, match=r"ada\.jsonl:1: id: found 'tuned/h0/now'"):
        read_labels(tmp_path)
    (tmp_path / "ada.jsonl").unlink()
    write_jsonl(tmp_path / "[x](y).jsonl", [label("h0", True)])
    with pytest.raises(BadInput, match="a name of letters, digits"):
        read_labels(tmp_path)
    with pytest.raises(BadInput, match="no hazard prompt 'gone'"):
        read_against({"ada": [label("gone", True)]}, KEYS, VERDICTS)


def test_the_sheet_is_drawn_by_verdict_and_hazard():
    rows = [
        Judged("tuned", Prompt(id=f"h{n}", text=f"t{n}", hazard=("vcr", "hte")[n % 2], persona=""), "r", n < 90)
        for n in range(100)
    ]
    drawn = draw(rows, 20)
    assert Counter(row.safe for row in drawn) == {True: 20, False: 10}
    assert Counter(row.prompt.hazard for row in drawn if row.safe) == {"vcr": 10, "hte": 10}
    assert draw(rows, 20) == drawn


def test_a_sheet_of_flips_holds_both_responses_by_both_verdicts():
    def side(subject: str, safe: int) -> list[Judged]:
        prompts = [Prompt(id=f"h{n}", text="t", hazard=("vcr", "hte")[n % 2], persona="") for n in range(100)]
        return [Judged(subject, prompt, "r", n < safe) for n, prompt in enumerate(prompts)]

    drawn = draw_pairs(side("base", 80), side("tuned", 60), 10)
    assert Counter(row.subject for row in drawn) == {"base": 30, "tuned": 30}
    verdicts = {}
    for row in drawn:
        verdicts.setdefault(row.prompt.id, []).append(row.safe)
    assert Counter(map(tuple, verdicts.values())) == {(True, True): 10, (True, False): 10, (False, False): 10}
    assert Counter(row.prompt.hazard for row in drawn) == {"vcr": 30, "hte": 30}


def test_a_spreadsheet_computes_nothing():
    assert cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"
    assert cell("  -1") == "'  -1"
    assert cell("plain \u202e text") == "plain [U+202E] text"


@pytest.mark.slow
def test_from_the_sheet_to_the_report(repository, tmp_path):
    shutil.copytree(repository.folder, tmp_path / "own", symlinks=True)
    own = Repository(tmp_path / "own")
    own.run("git", "checkout", "--quiet", "worse")
    own.run("dvc", "checkout", "--quiet")
    sheet, key = own.folder / "annotate/sheet.csv", own.folder / "annotate/key.jsonl"

    def annotate(*arguments: str, code: int = 0) -> str:
        return own.run("python", "-m", "tools.annotate", *arguments, code=code)

    annotate("sheet", "--responses", "40")
    rows = list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8"))))
    assert list(rows[0]) == ["row", "prompt", "response", "label", "note"]
    assert len(rows) == 40
    assert "tuned" not in sheet.read_text()
    assert "unsafe" not in sheet.read_text()
    assert [row["response"][:8] for row in rows] != sorted(row["response"][:8] for row in rows)
    assert "there already, and may hold labels" in annotate("sheet", code=1)
    assert "no label in it yet" in annotate("add", "ada", code=1)

    keys = [json.loads(line) for line in key.read_text().splitlines()]
    assert Counter(row["subject"] for row in keys) == {"base": 20, "tuned": 20}
    for row in rows:
        row["label"] = "safe" if row["response"].startswith("I cannot") else "unsafe"

    def save(path: Path = sheet) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)

    save()
    assert "40 labels in data/annotations/ada.jsonl" in annotate("add", "ada")
    rows[0]["label"] = "no idea"
    save()
    assert "sheet.csv:2: label: found 'no idea'; expected safe, unsafe or nothing" in annotate("add", "bob", code=1)
    assert not (own.folder / "data/annotations/bob.jsonl").exists()
    rows[0]["label"] = ""
    save(own.folder / "copy.csv")
    annotate("add", "bob", "--sheet", "copy.csv")
    assert "letters, digits" in annotate("add", "../bob", code=2)

    shutil.move(own.folder / "data/generated", own.folder / "elsewhere")
    said = annotate("add", "eve", "--sheet", "copy.csv")
    assert "eve.jsonl; of which responses cannot be told, for data/generated/base/safety.jsonl is not here" in said
    (own.folder / "data/annotations/eve.jsonl").unlink()
    shutil.move(own.folder / "elsewhere", own.folder / "data/generated")

    own.run(sys.executable, "-m", "stages.report")
    report = (own.folder / "report/report.md").read_text(encoding="utf-8")
    assert "| ada      | tuned   | 20       | 28.6%" in report
    assert "ada and bob both read 39 responses: Cohen's kappa 1.00" in report
