"""Drift reads how the committed answers were made: what would be otherwise now is said by name, and nothing is run."""

import json
import shutil

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from tests.conftest import ROOT, params_values
from tools.drift import Differences, made_otherwise


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A folder with the committed metrics/made.json and requirements.lock; call it to change one file's entry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    shutil.copy(ROOT / "requirements.lock", tmp_path)
    values = json.loads((ROOT / "metrics/made.json").read_text())

    def write(subject, file, **changes):
        values[subject][file] |= changes
        (tmp_path / "metrics/made.json").write_text(json.dumps(values))

    return write


def found(**changes):
    return made_otherwise(parse_params(params_values(**changes), "params.yaml"))


def test_what_is_committed_was_made_as_it_would_be_now(committed):
    committed("base", "math.jsonl", device="another")
    assert found() == Differences([], [])
    for file in ("math.jsonl", "safety.jsonl"):
        for subject in ("base", "tuned"):
            committed(subject, file, dtype="float32")  # on a CPU without 16 bits
    assert found() == Differences([], [])
    assert found(model__dtype="float32") == Differences([], [])


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("math.jsonl", {"engine": "shared-prefix 0"}, "the engine (shared-prefix 0, shared-prefix "),
        ("math.jsonl", {"content": "a" * 64}, "the model's files (aaaaaaaa, 1d961463)"),
        ("safety.jsonl", {"quantization": "none"}, "quantization (none, nf4)"),
        ("safety.jsonl", {"dtype": "float16"}, "the dtype of the computation (float16, bfloat16)"),
        ("verdicts.jsonl", {"content": "a" * 64}, "the model's files (aaaaaaaa, "),
        ("verdicts.jsonl", {"engine": None}, "the engine (none, shared-prefix "),
    ],
)
def test_what_was_made_otherwise_is_named(committed, file, changes, said):
    committed("tuned", file, **changes)
    (line,) = found().incomparable
    assert line.startswith(f"metrics/made.json: {file} of tuned was made otherwise (then, now): {said}")


def test_other_libraries_than_are_pinned_are_worth_a_word(committed):
    libraries = {"torch": "2.9.0+cu128", "transformers": "5.23.0", "odd": "1"}
    committed("base", "verdicts.jsonl", libraries=libraries)
    (line,) = found().noted
    assert "verdicts.jsonl of base was made otherwise (then, now): odd (1, none); torch (2.9.0+cu128, 2.13.0)" in line
    assert found().incomparable == []


def test_parameters_that_name_another_model_or_no_judge_are_told_apart(committed):
    committed("base", "math.jsonl")
    other = found(model__name="embedded/smollm2-135m")
    assert len(other.incomparable) == len(other.noted) == 4
    none = found(judge__protocol="refusal_rule", judge__model=None)
    assert [line.split(" of ")[0] for line in none.incomparable] == ["metrics/made.json: verdicts.jsonl"] * 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base": 3}', '{"base": {"math.jsonl": {}}}'])
def test_what_is_no_such_file_is_one_message(committed, text, tmp_path):
    (tmp_path / "metrics/made.json").write_text(text)
    with pytest.raises(BadInput, match=r"^metrics/made\.json: "):
        found()


def test_drift_refuses_answers_of_another_engine_that_dvc_knows_nothing_of(own):
    own.measure("made elsewhere", right=40, safe=80, made={"engine": "another 1"})
    said = own.run("python", "-m", "tools.drift", code=1)
    assert "math.jsonl of base was made otherwise (then, now): the engine (another 1, shared-prefix " in said
    assert "`dvc repro --force STAGE@SUBJECT ...`" in said
    own.measure("made here, by others' libraries", right=40, safe=80, made={"libraries": {"torch": "2.0.0"}})
    said = own.run("python", "-m", "tools.drift")
    assert "agree with code, parameters and data" in said
    assert "safety.jsonl of tuned was made otherwise (then, now): torch (2.0.0, " in said


def test_answers_of_a_server_are_held_against_what_params_ask_for(committed):
    served = {"engine": "vllm 0.32.0", "served": "tuned-12345678", "quantization": "as served", "dtype": "as served"}
    for subject in ("base", "tuned"):
        for file in ("math.jsonl", "safety.jsonl", "verdicts.jsonl"):
            committed(subject, file, **served)
    assert found(generate__engine="server") == Differences([], [])
    assert len(found().incomparable) == 6
    committed("base", "math.jsonl", engine="shared-prefix 1", served=None)
    (line,) = found(generate__engine="server").incomparable
    assert line.endswith("math.jsonl of base was made otherwise (then, now): the engine (shared-prefix 1, a server)")
