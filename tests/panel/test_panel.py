"""The panel: the harness's own tasks before and after, on a small model; and how its results are set side by side."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.measure.stats import paired_change
from tests.conftest import ONE_THREAD, params_values, write_params
from tools.panel import command, harness
from tools.panel.compared import compared, table

TASKS = Path(__file__).with_name("tasks")
INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm_eval is not installed (tools/panel/requirements.txt)")


def results(right: str, values: dict | None = None, asked: str = "d") -> dict:
    """A model's results as the harness gives them: one task, a digit for each question."""
    samples = [
        {"doc_id": n, "doc_hash": f"{asked}{n}", "target_hash": "t", "filter": "none", "acc": float(digit)}
        for n, digit in enumerate(right)
    ]
    share = sum(map(int, right)) / len(right)
    own = {"alias": "colours", "acc,none": share, "acc_stderr,none": 0.1, **(values or {})}
    return {
        "results": {"colours": own},
        "samples": {"colours": samples},
        "versions": {"colours": 3},
        "n-samples": {"colours": {"original": 20, "effective": len(right)}},
        "higher_is_better": {"colours": {"acc": True}},
    }


def test_two_models_stand_side_by_side_with_the_paired_change():
    (line,) = compared(results("1111100000"), results("0111111110"))
    wanted = paired_change([n < 5 for n in range(10)], [0 < n < 9 for n in range(10)])
    assert (line["base"], line["tuned"], line["base_stderr"], line["n"], line["version"]) == (0.5, 0.8, 0.1, 10, 3)
    assert (line["change"], line["change_low"], line["p"]) == (wanted.value, wanted.low, wanted.p)
    assert (line["lost"], line["gained"]) == (1, 4)
    (row,) = table([line])
    assert (row["base"], row["tuned"], row["better"]) == ("0.500 ± 0.100", "0.800 ± 0.100", "higher")
    assert row["change, points"].startswith("+30.0 (")


def test_outcomes_that_are_not_right_or_wrong_have_no_paired_change():
    one, two = ({"ppl,none": value, "ppl_stderr,none": "N/A"} for value in (7.5, 8.5))
    sides = [results("1100", one), results("1000", two)]
    for side in sides:
        for sample in side["samples"]["colours"]:
            sample["ppl"] = [0.25]
    acc, ppl = compared(*sides)
    assert "change" in acc
    assert "change" not in ppl
    assert (ppl["base"], ppl["tuned"], ppl["base_stderr"]) == (7.5, 8.5, None)
    assert table([ppl])[0]["p"] == "-"


def test_answers_to_other_questions_are_refused():
    with pytest.raises(BadInput, match="colours: the two models were not asked the same questions"):
        compared(results("10"), results("10", asked="other"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([","], "tasks: found none"), (["a", "--limit", "0"], "--limit: found 0"), (["a", "--shots", "-1"], "--shots")],
)
def test_wrong_arguments_are_refused(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["panel", *arguments])
    with pytest.raises(SystemExit):
        command.parse_arguments()
    assert said in capsys.readouterr().err


def test_what_is_missing_is_said_before_a_model_is_loaded(workspace, monkeypatch):
    write_params(workspace)
    monkeypatch.setattr(sys, "argv", ["panel", "arc_easy"])
    with pytest.raises(BadInput, match="models/tuned: no such folder; `dvc repro` makes it"):
        command.main()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (workspace / "models/tuned").mkdir()
    with pytest.raises(BadInput, match=r"lm_eval is not installed; `make panel TASKS=\.\.\.` installs it"):
        command.main()


@pytest.fixture
def tuned(workspace, tiny_models, monkeypatch):
    """A workspace with the tasks of this folder, a tiny model, and an adapter on it that changes what it says."""
    import torch

    from stages.lib.base.files import write_sums
    from stages.lib.model.models import load_base
    from stages.lib.model.sources import Source, load_tokenizer
    from stages.lib.train.training import add_lora, save

    shutil.copytree(TASKS, workspace / "tasks")
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    changes = {"model__name": "./tiny", "model__quantization": "none", "model__dtype": "float32"}
    write_params(workspace, **changes, fewshot__system__testing="Answer.")
    source = Source(str(workspace / "tiny"), None)
    lora = parse_params(params_values(**changes), "params.yaml").lora
    model = add_lora(load_base(source, "none", "float32"), lora, 5, "./tiny", None)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    save(model, load_tokenizer(source), workspace / "models/tuned", "float32")
    write_sums(workspace / "models/tuned")
    return workspace


@needs_harness
def test_a_local_task_is_measured_before_and_after(tuned):
    environment = {**ONE_THREAD, "HF_HOME": str(tuned / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ask = [sys.executable, "-m", "tools.panel", "colours,colours_said", "--include-path", "tasks"]
    done = subprocess.run(ask, cwd=tuned, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = json.loads((tuned / "metrics/panel.json").read_text())
    lines = {(line["task"], line["metric"]): line for line in written["tasks"]}
    assert set(lines) == {("colours", "acc"), ("colours_said", "exact_match"), ("colours_said", "chrf")}
    acc = lines["colours", "acc"]
    assert (acc["n"], acc["pairs"], acc["version"], acc["higher_is_better"]) == (12, 12, 3, True)
    assert acc["gained"] - acc["lost"] == round(12 * (acc["tuned"] - acc["base"]))
    assert acc["gained"] + acc["lost"] > 0  # the adapter was on
    share = acc["base"]
    assert acc["base_stderr"] == pytest.approx((share * (1 - share) / 11) ** 0.5, rel=1e-4)  # the harness's own
    assert "change" not in lines["colours_said", "chrf"]
    assert written["settings"]["system_instruction"] == "Answer."
    assert written["made"]["base"]["tuning"] is None
    assert written["made"]["tuned"]["tuning"]
    assert written["made"]["tuned"]["engine"].startswith("lm_eval 0.4.")
    assert "| colours " in done.stdout
    again = subprocess.run([*ask, "--limit", "4"], cwd=tuned, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert {line["n"] for line in json.loads((tuned / "metrics/panel.json").read_text())["tasks"]} == {4}


@needs_harness
def test_the_model_that_is_asked_is_that_of_the_stages(tuned, monkeypatch):
    """The chat template and the system turn stand around each question, as in this project's prompts."""
    from lm_eval.models.huggingface import HFLM

    from stages.lib.base.params import load_params
    from stages.lib.model.sources import Source, load_chat_tokenizer
    from stages.lib.prompts.chat import render_prompt

    monkeypatch.setenv("HF_HOME", str(tuned / "hf"))
    seen = []
    original = HFLM.generate_until
    monkeypatch.setattr(HFLM, "generate_until", lambda self, r, **_: seen.extend(r) or original(self, r, **_))
    params = load_params()
    settings = {"num_fewshot": None, "limit": 1, "batch_size": 2, "system_instruction": "Answer."}
    tasks = harness.find(["colours_said"], Path("tasks"))
    harness.measure("tuned", params.model, params.model, 1.0, tasks, settings)
    messages = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "What is the colour of a clear sky at noon? One word."},
    ]
    wanted = render_prompt(load_chat_tokenizer(Source(str(tuned / "tiny"), None)), messages)
    assert seen[0].args[0] == wanted


@needs_harness
def test_an_unknown_task_and_one_without_data_are_one_message(tuned, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tuned / "hf"))
    with pytest.raises(BadInput, match="the harness has no task 'colours_sung'; there are colours, colours_said, ..."):
        harness.find(["colours_sung"], Path("tasks"))
    (tuned / "tasks/colours.jsonl").unlink()
    with pytest.raises(BadInput, match="colours: the harness cannot load it: FileNotFoundError"):
        harness.find(["colours"], Path("tasks"))
    with pytest.raises(BadInput, match="--include-path: found nowhere, which is no folder"):
        harness.find(["colours"], Path("nowhere"))
