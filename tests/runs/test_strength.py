"""A sweep of strengths: its table, what it is told, and that each experiment is of its strength and of nothing else."""

import json
import sys

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.measure.moved import Mean
from stages.lib.measure.stats import paired
from tests.conftest import ROOT
from tools import strength

BEFORE = [True] * 8 + [False] * 2


def measures(right: int):
    after = [n < right for n in range(10)]
    return {name: paired(BEFORE, after) for name in ("accuracy", "safety", "over_refusal")}


def test_one_line_for_the_untuned_model_and_one_for_each_strength():
    rows = strength.table({0.5: (measures(4), Mean(0.1234, 0.1, 0.2, 10)), 1.0: (measures(2), None)})
    assert [row["strength"] for row in rows] == ["untuned", "0.5", "1"]
    assert [row["math accuracy"].split()[0] for row in rows] == ["80.0%", "40.0%", "20.0%"]
    assert [row["over-refusal"].split()[0] for row in rows] == ["80.0%", "40.0%", "20.0%"]
    assert [row["moved, nats by the token"] for row in rows] == ["0", "0.123 (0.1 to 0.2)", "-"]


def test_each_strength_is_an_experiment_of_the_same_commit_with_the_same_parameters(monkeypatch, tmp_path, capsys):
    detail = (ROOT / "metrics/detail.json").read_text()
    made = []
    monkeypatch.setattr(sys, "argv", ["strength", "1", "0.25", "0.25", "-S", "finetune.epochs=2"])
    monkeypatch.setattr(strength, "check_repository", lambda: None)
    monkeypatch.setattr(strength, "experiment", lambda *given: made.append(given[:3]))
    asked = {"rev-parse": "a" * 40, "show": json.dumps({"moved": [], **json.loads(detail)})}
    monkeypatch.setattr(strength, "git", lambda *command: asked[command[0]])
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    strength.main()
    overrides = [{"finetune.epochs": 2, "lora.strength": at} for at in (0.25, 1.0)]
    names = ("strength-0.25", "strength-1")
    assert made == [(name, of, "a" * 40) for name, of in zip(names, overrides, strict=True)]
    assert "| 0.25 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["1.5"], "lora.strength: found 1.5"),
        (["0.5", "-S", "lora.r"], "-S lora.r: expected a parameter and its value"),
        (["0.5", "-S", "lora.rank=3"], "lora.rank: params.yaml has no such parameter"),
        (["0.5", "-S", "lora.enabled=false", "-S", "model.quantization=none"], "so set lora.strength to 1"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_runs(arguments, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["strength", *arguments])
    monkeypatch.setattr(strength, "experiment", None)
    monkeypatch.chdir(ROOT)
    with pytest.raises(BadInput) as error:
        strength.main()
    assert said in str(error.value)
