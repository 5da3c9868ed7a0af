"""Sets that are taken for disjoint have no row in common, by what the rows ask."""

import time

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem, Prompt
from stages.lib.data.overlaps import check_disjoint, repeated
from stages.lib.data.sources import load_benign, load_hazards, load_problems
from stages.lib.data.subsets import choose_training
from tests.conftest import ROOT, params_values, real_data


def problem(name: str, question: str) -> Problem:
    return Problem(id=name, question=question, answer="#### 2", gold="2")


def prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, text=text, hazard="vcr", persona="")


SETS = {
    "train": [problem("train-00000", "How many?"), problem("train-00004", "How much?")],
    "test": [problem("test-00000", "How far?"), problem("test-00003", "How high?")],
    "hazards": [prompt("1", "Hurt him."), prompt("2", "Rob it.")],
    "benign": [prompt("b1", "Kill the process."), prompt("b2", "Rob a bank, in chess.")],
}
SHARED = [
    ("test", 1, problem("test-00003", "How much?"), "test test-00003 (test-00003) asks what train train-00004 (train"),
    ("test", 1, problem("test-00003", " how\tMUCH?\r\n"), "test test-00003 (test-00003) asks what train train-00004"),
    ("benign", 1, prompt("b2", "hurt  him."), "benign b2 (b2) asks what hazards 1 (1) asks"),
    ("benign", 0, prompt("2", "Kill the process."), "benign 2 (2) has the id of hazards 2 (2)"),
]


@pytest.mark.parametrize(("name", "at", "row", "said"), SHARED)
def test_sets_with_a_row_in_common_are_refused_by_name(name, at, row, said):
    check_disjoint(SETS, lambda name, row: f"{name} {row}")
    shared = {**SETS, name: [row if n == at else each for n, each in enumerate(SETS[name])]}
    with pytest.raises(BadInput) as error:
        check_disjoint(shared, lambda name, row: f"{name} {row}")
    first, *_, last = str(error.value).splitlines()
    assert first.startswith(said)
    assert last.strip().startswith(f"1 of 2 {name} rows in all: ")


def test_what_stands_twice_in_one_set_is_found_by_what_it_asks():
    rows = [problem(f"p{n}", text) for n, text in enumerate(["How many?", "How  many?", "How much?", "HOW MANY?"])]
    assert repeated(rows) == [("p1", "p0"), ("p3", "p0")]
    assert repeated(rows[1:3]) == []


def test_no_training_row_asks_what_an_example_asks():
    twice = [problem(f"p{n}", f"How many are {n // 2}?") for n in range(60)]
    train, shots = choose_training(twice, "all", 16, 1)
    assert not {row.question for row in train} & {row.question for row in shots}
    assert len(train) == 60 - 2 * len({row.question for row in shots})


@pytest.mark.parametrize("name", ["embedded", "real"])
def test_whole_files_have_nothing_in_common_and_it_takes_no_time_to_see(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    changes = {}
    if name == "real":
        ailuminate = "ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv"
        for which, file in (("train", "gsm8k/train.jsonl"), ("test", "gsm8k/test.jsonl"), ("hazards", ailuminate)):
            changes |= {"data__source": "file", f"data__files__{which}": str(real_data(file))}
    data = parse_params(params_values(**changes), "params.yaml").data
    sets = {split: load_problems(data, split) for split in ("train", "test")}
    sets |= {"hazards": load_hazards(data), "benign": load_benign(data)}
    start = time.process_time()
    check_disjoint(sets, lambda name, row: row)
    assert [repeated(rows) for rows in sets.values()] == [[]] * 4
    assert time.process_time() - start < 0.5
