"""Rows from files: what is refused and how it is named, how subsets and example problems are chosen."""

import csv
import hashlib
import json
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.base.errors import BadInput
from stages.lib.base.measured import HAZARDS
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem, Prompt
from stages.lib.data.sources import load_benign, load_hazards, load_problems
from stages.lib.data.subsets import choose_training, first_rows, stratified
from tests.conftest import ROOT, params_values, real_data

GOOD = '{"question": "How many?", "answer": "One and one.\\n#### 2"}\n'


def data_from(tmp_path, **files):
    """data params with source: file, each named file holding the given bytes."""
    changes = {"data__source": "file"}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        changes[f"data__files__{name}"] = str(path)
    return parse_params(params_values(**changes), "params.yaml").data


BAD_ROWS = [
    ("", "no rows"),
    ("\n", "train:1: not JSON"),
    (GOOD + "{not json}\n", "train:2: not JSON"),
    (GOOD + '{"question": "How many?"}\n', "train:2: answer: Field required"),
    (GOOD + '{"question": "", "answer": "#### 2"}\n', "train:2: question: found ''"),
    (GOOD + '{"question": 5, "answer": "#### 2"}\n', "train:2: question: found 5"),
    (GOOD + '{"question": "How many?", "answer": "two"}\n', "last line is '#### N'"),
    (GOOD + GOOD.replace("}", ', "group": "a/b"}'), "train:2: group: found 'a/b'"),
    (GOOD + GOOD.replace("}", f', "group": "{"a" * 61}"}}'), "train:2: group: found 'aaa"),
    (GOOD + '["How many?", "#### 2"]\n', "train:2:"),
    (GOOD + "null\n", "train:2:"),
    (GOOD.encode() + b'{"question": "\xff"}\n', "not UTF-8 at byte"),
]


@pytest.mark.parametrize(("content", "expected"), BAD_ROWS)
def test_bad_math_rows_are_named_by_file_line_and_field(tmp_path, content, expected):
    with pytest.raises(BadInput) as error:
        load_problems(data_from(tmp_path, train=content), "train")
    assert expected in str(error.value)


def test_a_problem_has_the_group_that_its_row_names_or_none(tmp_path):
    content = GOOD + GOOD.replace("}", ', "group": "bus-stop"}')
    assert [row.group for row in load_problems(data_from(tmp_path, train=content), "train")] == [None, "bus-stop"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    rows = load_problems(data_from(tmp_path, train=b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()), "train")
    assert [(row.id, row.gold) for row in rows] == [("train-00000", "2")]


HEADER = "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash\n"
BAD_PROMPTS = [
    ("", "column 'release_prompt_id' is missing"),
    (HEADER, "no rows under the header"),
    ("id,prompt_text,hazard,persona\n1,a,vcr,x\n", "column 'release_prompt_id' is missing"),
    (HEADER + "1,,vcr,skilled,en_US,h\n", "hazards:2: prompt_text: found ''"),
    (HEADER + "1,a,xyz,skilled,en_US,h\n", "hazards:2: hazard: found 'xyz'; expected one of vcr"),
    (HEADER + "1,a\n", "hazards:2: hazard: found None"),
    (HEADER + "1,a,vcr,skilled,en_US,h\n1,b,vcr,skilled,en_US,h\n", "hazards:2 already; ids must be unique"),
    (HEADER + '1,"a,vcr,skilled,en_US,h\n', "not readable as CSV"),
]


@pytest.mark.parametrize(("content", "expected"), BAD_PROMPTS)
def test_bad_hazard_rows_are_named(tmp_path, content, expected):
    with pytest.raises(BadInput) as error:
        load_hazards(data_from(tmp_path, hazards=content))
    assert expected in str(error.value)


def test_a_missing_file_and_a_wrong_hash_are_named(tmp_path):
    data = data_from(tmp_path, train=GOOD)
    gone = data.model_copy(update={"files": data.files.model_copy(update={"train": str(tmp_path / "gone.jsonl")})})
    with pytest.raises(BadInput, match=r"gone\.jsonl: no such file; it is named by data\.files\.train"):
        load_problems(gone, "train")
    for pin, fits in ((hashlib.sha256(GOOD.encode()).hexdigest(), True), ("0" * 64, False)):
        pinned = data.model_copy(update={"sha256": data.sha256.model_copy(update={"train": pin})})
        if fits:
            load_problems(pinned, "train")
        else:
            with pytest.raises(BadInput, match=r"sha256 is [0-9a-f]{64}, but data\.sha256\.train expects 0000"):
                load_problems(pinned, "train")


def problems(count: int) -> list[Problem]:
    return [
        Problem(id=f"p{n}", question=f"{n}{'q' * (n * 7 % 13)}", answer=f"#### {n}", gold=str(n)) for n in range(count)
    ]


@settings(max_examples=30)
@given(
    st.integers(20, 90),
    st.integers(0, 16),
    st.sampled_from(["all", "shortest_third", "shortest_third/2", 3]),
    st.integers(0, 99),
)
def test_example_problems_are_never_training_rows(count, shots, rows, seed):
    train, drawn = choose_training(problems(count), rows, shots, seed)
    assert len(drawn) == shots == len({p.id for p in drawn})
    assert not {p.id for p in drawn} & {p.id for p in train}
    assert train == sorted(train, key=lambda p: int(p.id[1:]))
    assert choose_training(problems(count), rows, shots, seed) == (train, drawn)
    if rows == "shortest_third/2":
        assert train == choose_training(problems(count), "shortest_third", shots, seed)[0][:2]
    if rows == "shortest_third":
        assert len(train) == min(count // 3, count - shots)
        left_out = [p for p in problems(count) if p not in train and p not in drawn]
        longest = max(len(p.question) + len(p.answer) for p in train)
        assert all(len(p.question) + len(p.answer) >= longest for p in left_out)


def test_more_rows_than_there_are_is_refused_not_shortened():
    with pytest.raises(BadInput, match=r"data\.test_rows: 9 rows wanted, but only 5 are there"):
        first_rows(problems(5), 9, "test")
    with pytest.raises(BadInput, match="too few"):
        choose_training(problems(5), "all", 16, 1)


prompts = st.lists(
    st.tuples(st.sampled_from(["vcr", "hte", "prv", "spc_fin"]), st.sampled_from(["skilled", "unskilled"])),
    min_size=1,
    max_size=80,
).map(lambda kinds: [Prompt(id=str(n), text="x", hazard=h, persona=p) for n, (h, p) in enumerate(kinds)])


@given(prompts, st.data())
def test_a_subset_is_stratified_within_one_prompt_of_proportion(rows, data):
    wanted = data.draw(st.integers(1, len(rows)))
    chosen = stratified(rows, wanted, 5, "hazard")
    assert len(chosen) == wanted
    assert chosen == [row for row in rows if row in chosen]
    there, taken = Counter(row.hazard for row in rows), Counter(row.hazard for row in chosen)
    for hazard, count in there.items():
        assert abs(taken[hazard] - wanted * count / len(rows)) < 1
        for persona in ("skilled", "unskilled"):
            of_persona = sum(row.hazard == hazard and row.persona == persona for row in rows)
            got = sum(row.hazard == hazard and row.persona == persona for row in chosen)
            assert abs(got - taken[hazard] * of_persona / count) < 1


def test_the_embedded_data_is_whole_and_its_generator_still_writes_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    from tools.embedded import word_problems

    assert word_problems.main(["--check"]) == 0
    data = parse_params(params_values(), "params.yaml").data
    as_test = {"data__source": "file", "data__files__test": "data/embedded/validation.jsonl"}
    splits = {
        "train": load_problems(data, "train"),
        "validation": load_problems(parse_params(params_values(**as_test), "params.yaml").data, "test"),
        "test": load_problems(data, "test"),
    }
    for problem in chain.from_iterable(splits.values()):
        for step in problem.answer.split("<<")[1:]:
            expression, result = step.split(">>")[0].split("=")
            assert eval(expression) == int(result)
        assert problem.answer.split(">>")[-2].split("=")[-1] == problem.gold
    questions = [problem.question for problem in chain.from_iterable(splits.values())]
    assert len(set(questions)) == len(questions)
    templates = [template.group for split in splits for template in word_problems.TEMPLATES[split]]
    assert len(set(templates)) == len(templates)
    for split, rows_each in (("train", 16), ("validation", 5), ("test", 2)):
        groups = {template.group: rows_each for template in word_problems.TEMPLATES[split]}
        assert Counter(problem.group for problem in splits[split]) == groups
    words = [set(chain.from_iterable(word_problems.WORDS[split].values())) for split in splits]
    assert len(set.union(*words)) == sum(len(of_split) for of_split in words)
    hazards, benign = load_hazards(data), load_benign(data)
    codes = set(HAZARDS) - {"cse"}
    assert Counter(p.hazard for p in hazards) == dict.fromkeys(codes, 10)
    assert Counter(p.hazard for p in benign) == dict.fromkeys(codes, 5)
    for name in ("hazards", "benign"):
        with (ROOT / f"data/embedded/{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                assert row["prompt_hash"] == hashlib.sha256(row["prompt_text"].encode()).hexdigest()


def test_real_gsm8k_and_ailuminate_match_their_pins_and_subsets():
    pins = {
        "train": ("gsm8k/train.jsonl", "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"),
        "test": ("gsm8k/test.jsonl", "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"),
        "hazards": (
            "ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv",
            "63e2b654325c5405096fabf28ef5f057b0ad674904b1839fd1f52b523e324d02",
        ),
    }
    changes = {"data__source": "file"}
    for name, (file, pin) in pins.items():
        changes[f"data__files__{name}"] = str(real_data(file))
        changes[f"data__sha256__{name}"] = pin
    data = parse_params(params_values(**changes), "params.yaml").data
    train, shots = choose_training(load_problems(data, "train"), "shortest_third", 16, 1126)
    assert (len(train), len(shots)) == (2491, 16)
    test = load_problems(data, "test")
    assert len(test) == 1319
    assert sum(problem.gold.startswith("-") for problem in test) == 2
    chosen = stratified(load_hazards(data), 120, 1126, "hazard")
    counts = Counter(prompt.hazard for prompt in chosen)
    assert set(counts) == set(HAZARDS)
    assert all(count == 10 for hazard, count in counts.items() if not hazard.startswith("spc"))
    # one hash covers the hub and the file: rows written again as JSON Lines are the published bytes
    raw = real_data("gsm8k/test.jsonl").read_bytes()
    again = "".join(json.dumps({"question": p.question, "answer": p.answer}) + "\n" for p in test).encode()
    assert again == raw
