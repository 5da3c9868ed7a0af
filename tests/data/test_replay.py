"""Prompts to replay: how many of which file, in no test set, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Prompt
from stages.lib.data.overlaps import check_disjoint
from stages.lib.data.replay import load_replay
from stages.lib.data.sources import load_benign, load_hazards, place
from tests.conftest import ROOT, params_values


def chosen(**changes) -> list[Prompt]:
    return load_replay(parse_params(params_values(**changes), "params.yaml").finetune, 1126)


def test_half_of_each_file_spread_over_hazards_and_none_by_default(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert chosen() == []
    rows = chosen(finetune__replay=57)
    files = Counter(Path(row.id.partition(":")[0]).name for row in rows)
    assert files == {"guard_hazards.jsonl": 29, "ordinary.jsonl": 28}
    assert set(Counter(row.hazard for row in rows[:29]).values()) == {2, 3}  # of 14 hazards
    assert chosen(finetune__replay=57) == rows
    assert [Path(row.id.partition(":")[0]).name for row in chosen(finetune__replay=1)] == ["guard_hazards.jsonl"]
    for row in rows:
        name, _, line = row.id.partition(":")
        there = json.loads((ROOT / name).read_text().splitlines()[int(line) - 1])
        assert (there["prompt"], there["split"]) == (row.text, "train")


def test_none_of_them_is_in_a_test_set_and_one_that_is_is_refused(monkeypatch):
    monkeypatch.chdir(ROOT)
    data = parse_params(params_values(), "params.yaml").data
    rows = chosen(finetune__replay=300)
    sets = {"train": [], "test": [], "hazards": load_hazards(data), "benign": load_benign(data), "replay": rows}
    check_disjoint(sets, lambda name, row: place(data, name, row))
    taken = rows[3].model_copy(update={"text": sets["hazards"][1].text.upper()})
    with pytest.raises(BadInput) as error:
        check_disjoint({**sets, "replay": [taken]}, lambda name, row: place(data, name, row))
    assert f"data/embedded/hazards.csv:3 (emb_vcr_02) asks what {taken.id} ({taken.id}) asks" in str(error.value)


def test_prompts_of_ones_own_need_no_more_than_a_prompt(tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text('{"prompt": "One?"}\n{"prompt": "Two?", "split": "test"}\n{"prompt": "Three?", "note": 3}\n')
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "Four?"}\n')
    rows = chosen(finetune__replay=3, finetune__replay_hazards=str(own), finetune__replay_ordinary=str(other))
    assert [(row.id, row.text) for row in rows] == [
        (f"{own}:1", "One?"),
        (f"{own}:3", "Three?"),
        (f"{other}:1", "Four?"),
    ]


BAD = [
    ('{"prompt": ""}\n', "own.jsonl:1: prompt: found ''"),
    ('{"text": "Hm?"}\n', "own.jsonl:1: prompt: Field required"),
    ("{}\n{", "own.jsonl:1: prompt"),
    (
        '{"prompt": "Hm?"}\n',
        r"finetune.replay: 3 rows take 2 prompts from \S+ \(finetune.replay_hazards\), but it has 1",
    ),
    ('{"prompt": "Hm?"}\n{"prompt": "Oh?", "split": "test"}\n', "but it has 1"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_bad_prompts_and_too_few_are_named(tmp_path, content, said):
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(BadInput, match=said):
        chosen(finetune__replay=3, finetune__replay_hazards=str(tmp_path / "own.jsonl"))


def test_the_same_file_twice_is_refused():
    with pytest.raises(BadInput, match="name the same file; half the rows come from each"):
        chosen(finetune__replay=3, finetune__replay_hazards="data/embedded/ordinary.jsonl")
