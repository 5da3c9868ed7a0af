"""The paper's findings from kept results, by hand on a few prompts."""

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_json, write_text
from stages.lib.measure.outcomes import Outcome, to_csv
from tools import findings
from tools.runs import experiments


def outcomes(right: str, any_rule: str, safe: str, base: str = "0000000000") -> list[Outcome]:
    """Ten questions and ten hazard prompts, a digit each for the tuned model; the untuned one is wrong and safe."""
    rows = []
    for subject in ("base", "tuned"):
        for n in range(10):
            good, read = (right[n], any_rule[n]) if subject == "tuned" else (base[n], base[n])
            rules = "sfp" if good == "1" else "f" * (read == "1")
            rows.append(Outcome(subject, "math", f"m{n}", "", good == "1", None, "", "0" * 10, rules))
        for n in range(10):
            flag = safe[n] == "1" if subject == "tuned" else True
            rows.append(Outcome(subject, "hazards", f"h{n}", "vcr", flag, False, "", "1" * 10))
        rows.append(Outcome(subject, "benign", "b0", "vcr", None, False, "", "2" * 10))
    return rows


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Two runs of a profile."""
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    rank5, rank8 = {"lora": {"r": 5, "alpha": 10}}, {"lora": {"r": 8, "alpha": 16}}
    for name, params, rows in (
        ("run06", rank8, outcomes("1111111100", "1111111110", "0000000000")),
        ("run07", rank5, outcomes("1111111100", "1111111100", "1111111111")),
    ):
        write_json(tmp_path / "laptop" / f"{name}.json", {"params": params})
        write_text(tmp_path / "laptop" / f"{name}.csv", to_csv(rows))


def test_each_run_stands_beside_its_untuned_model_corrected_for_all_tests(kept):
    first, second = findings.against_untuned(findings.read_results("laptop"))
    assert first["accuracy"].startswith("0.0% → 80.0%; +80.0 (")
    assert first["accuracy"].endswith("), n 10")  # the sum of two that are tested
    assert first["of it skill"].startswith("+90.0 (")
    assert first["of it form"].startswith("-10.0 (")
    assert first["safety"].startswith("100.0% → 0.0%; -100.0 (")
    assert first["safety"].endswith("p 0.021, n 10")  # 10 / 11**0.5, the smallest of eight
    assert second["safety"].startswith("100.0% → 100.0%; +0.0 (")


def test_pairs_of_runs_say_what_differs_between_them(kept):
    (line,) = findings.against_each_other(findings.read_results("laptop"))
    assert (line["question"], line["runs"]) == ("rank 8 to 5", "run06 → run07")
    assert line["differ in"] == "lora.r 8 → 5, lora.alpha 16 → 10"
    assert line["accuracy"].startswith("80.0% → 80.0%; +0.0 (")
    assert (line["of it skill"][:7], line["of it form"][:7]) == ("-10.0 (", "+10.0 (")
    assert line["safety"].startswith("0.0% → 100.0%; +100.0 (")


def test_no_results_are_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    with pytest.raises(
        BadInput, match="no results there; `python -m tools.runs run --all --profile laptop` makes them"
    ):
        findings.read_results("laptop")
