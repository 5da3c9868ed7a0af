"""The one model card: of a model that was just tuned, and of one that leaves with its numbers."""

import hashlib
import re

import pytest
from ruamel.yaml import YAML

from stages.lib.base.card import model_card
from stages.lib.base.params import parse_params
from tests.conftest import HOSTILE, params_values

NAMES = ["./plain", "./a: b # c", "./'\"\\", f"./{HOSTILE}", "./[1, 2]", "./\U0001f642\u2028\x85", "./---\n---"]


@pytest.mark.parametrize("name", NAMES)
def test_the_base_model_is_its_name_to_yaml(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/prepared").mkdir(parents=True)
    (tmp_path / "data/prepared/train.jsonl").write_text("{}\n{}\n")
    params = parse_params(params_values(model__name=name), "params.yaml")
    card = model_card("adapter", params.model, ("train",), {"lora": params.lora.model_dump()})
    head = YAML(typ="safe").load(card.split("---\n")[1])
    assert head == {"base_model": name, "library_name": "peft"}
    assert f"| train.jsonl | 2 | {hashlib.sha256(b'{}' + bytes([10]) + b'{}' + bytes([10])).hexdigest()} |" in card
    assert "metrics/headline.json of the same commit" in card
    assert re.findall(r"(?m)^ {0,3}```.*$", card) == ["```python", "```", "```yaml", "```"]


def test_the_card_of_what_was_tuned_elsewhere_says_what_was_found_and_claims_no_training():
    params = parse_params(params_values(), "params.yaml")
    card = model_card("whole", params.model, (), {}, elsewhere=[f"found {HOSTILE}"])
    for said in ("Tuned elsewhere, and taken as it was.", "- ``found", "What it was tuned on is not known here"):
        assert said in card
    for said in ("math word problems", "word problems;", "## Data"):
        assert said not in card
