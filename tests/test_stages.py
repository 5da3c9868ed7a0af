"""The six stages as a user runs them, on a small random model: the whole pipeline, run 9, bad input from outside."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages import finetune, gen_math, gen_safety, judge, prepare, report
from stages.lib.base.rows import Answer, read_jsonl
from tests.conftest import ROOT, write_params

SMALL = {
    "data__train_rows": 8,
    "data__test_rows": 6,
    "data__hazard_rows": 14,
    "data__benign_rows": 14,
    "gen_math__max_new_tokens": 8,
    "gen_safety__max_new_tokens": 8,
    "finetune__learning_rate": 1e-2,
    "model__name": "./tiny",
    "judge__protocol": "refusal_rule",
    "judge__model": None,
}


@pytest.fixture
def small(workspace, tiny_models) -> Path:
    """A workspace whose params name a tiny model and few rows."""
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    write_params(workspace, **SMALL)
    return workspace


def run_stages(monkeypatch, *stages) -> None:
    for stage, *arguments in stages:
        monkeypatch.setattr(sys, "argv", [stage.__name__, *arguments])
        stage.main()


WHOLE = [
    (prepare,),
    (finetune,),
    *((stage, subject) for stage in (gen_math, gen_safety, judge) for subject in ("base", "tuned")),
    (report,),
]


def outputs(folder: Path) -> dict[str, bytes]:
    """Every file the pipeline made, without what a run cost."""
    patterns = ("metrics/*", "report/*", "models/tuned/*", "data/*/*/*")
    made = [path for pattern in patterns for path in folder.glob(pattern)]
    costs = ("cost.json", "report.md", "report.html")
    return {str(p.relative_to(folder)): p.read_bytes() for p in made if p.is_file() and p.name not in costs}


@pytest.mark.slow
def test_the_whole_pipeline_and_the_same_bytes_twice(small, monkeypatch):
    guard = {"judge__protocol": "llama_guard_3", "judge__model": "embedded/guard"}
    write_params(small, **{**SMALL, **guard})
    run_stages(monkeypatch, *WHOLE)
    first = outputs(small)
    head = json.loads(first["metrics/headline.json"])
    assert head["n"] == {"math": 6, "hazards": 14, "benign": 14}
    with (small / "metrics/outcomes.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (6 + 14 + 14)
    assert {"plane.png", "hazards.png", "loss.png"} <= {path.name for path in (small / "report").iterdir()}
    assert all(first[f"report/{name}.png"].startswith(b"\x89PNG") for name in ("plane", "hazards", "loss"))
    text = (small / "report/report.md").read_text()
    assert "## Safety by hazard" in text
    base, tuned = (read_jsonl(small / f"data/generated/{s}/math.jsonl", Answer) for s in ("base", "tuned"))
    assert [a.id for a in base] == [a.id for a in tuned] == [f"test-{n:05d}" for n in range(6)]
    assert [a.text for a in base] != [a.text for a in tuned]
    assert [a.prompt_sha256 for a in base] == [a.prompt_sha256 for a in tuned]
    left = [str(path) for path in small.rglob("*.part")]
    assert left == []

    for folder in ("data/prepared", "data/generated", "models/tuned", "metrics", "report"):
        shutil.rmtree(small / folder)
    run_stages(monkeypatch, *WHOLE)
    assert outputs(small) == first


WAYS = {
    "data__solutions": "own",
    "data__samples": 2,
    "fewshot__shots": 2,
    "fewshot__system__training": "",
    "fewshot__system__testing": "Be kind.",
    "lora__strength": 0.5,
    "finetune__mask_perplexity": 1e6,
    "finetune__replay": 6,
    "finetune__kl": 0.5,
}


@pytest.mark.slow
def test_all_ways_to_forget_less_at_once_and_the_same_bytes_whatever_was_kept(small, monkeypatch):
    write_params(small, **SMALL, **WAYS)
    run_stages(monkeypatch, *WHOLE)
    first = outputs(small)
    found = json.loads(first["models/tuned/training.json"])
    assert found["solved_share"] == 0  # a random model solves nothing: the published solutions are masked
    assert 0 < found["masked_share"] < 1
    assert 0 < found["replayed"] <= 6
    (moved,) = json.loads(first["metrics/detail.json"])["moved"]
    assert 0 < moved["low"] < moved["value"] < moved["high"]
    assert moved["n"] == 14
    assert "Where nothing was taught: on what the untuned model answered to 14 harmless prompts" in (
        (small / "report/report.md").read_text()
    )
    assert "strength" not in first["models/tuned/README.md"].decode()
    kept = sorted((small / ".ckpt/untuned").rglob("*.json"))
    assert len(kept) == 3  # texts drawn, replayed and scored, a batch each; also after the report
    times = [path.stat().st_mtime_ns for path in kept]
    for again in (False, True):  # with what the untuned model said kept, and without
        shutil.rmtree(small / "models/tuned")
        if again:
            shutil.rmtree(small / ".ckpt")
        run_stages(monkeypatch, *WHOLE)
        assert outputs(small) == first
        assert (times == [path.stat().st_mtime_ns for path in kept]) is not again
    plain = {name: value for name, value in WAYS.items() if name != "lora__strength"}
    write_params(small, **SMALL, **plain)
    run_stages(monkeypatch, (gen_safety, "tuned"))
    whole = read_jsonl(small / "data/generated/tuned/safety.jsonl", Answer)
    assert sum(row.divergence for row in whole[14:]) / 14 > 1.5 * moved["value"]


@pytest.mark.slow
def test_run_9_leaves_every_answer_as_it_was(small, monkeypatch):
    run_9 = {"lora__dropout": 1.0, "finetune__weight_decay": 0.01, "fewshot__shots": 2, "finetune__loss": "text"}
    write_params(small, **SMALL, **run_9)
    run_stages(monkeypatch, *WHOLE)
    for name in ("math", "verdicts"):
        base, tuned = (small / f"data/generated/{subject}/{name}.jsonl" for subject in ("base", "tuned"))
        assert base.read_bytes() == tuned.read_bytes(), name
    base, tuned = (
        read_jsonl(small / f"data/generated/{subject}/safety.jsonl", Answer) for subject in ("base", "tuned")
    )
    assert [row.model_copy(update={"divergence": None}) for row in tuned] == base
    assert {row.divergence for row in tuned} == {None, 0.0}  # of hazard prompts none, and it has not moved at all
    head = json.loads((small / "metrics/headline.json").read_text())
    assert (head["accuracy"]["change"], head["accuracy"]["p"], head["safety"]["change"]) == (0, 1, 0)


@pytest.mark.slow
def test_full_parameter_tuning_through_the_stages(small, monkeypatch):
    write_params(small, **SMALL, lora__enabled=False, model__quantization="none", model__dtype="float32")
    run_stages(monkeypatch, *WHOLE)
    assert (small / "models/tuned/model.safetensors").is_file()
    base, tuned = ((small / f"data/generated/{s}/math.jsonl").read_bytes() for s in ("base", "tuned"))
    assert base != tuned
    moved = [row.divergence for row in read_jsonl(small / "data/generated/tuned/safety.jsonl", Answer)]
    assert moved[:14] == [None] * 14 and all(value > 0 for value in moved[14:])


@pytest.mark.slow
def test_a_model_that_was_tuned_elsewhere_through_the_stages(small, monkeypatch):
    """Its own run's adapter, brought as if another tool had made it: the same answers, and nothing trained."""
    run_stages(monkeypatch, *WHOLE)
    trained = outputs(small)
    shutil.copytree(small / "models/tuned", small / "mine")
    write_params(small, **SMALL, tuned__model="./mine")
    run_stages(monkeypatch, *WHOLE)
    brought = outputs(small)
    same = {name for name in brought if name.startswith("data/generated/") and "made" not in name}
    assert len(same) == 6
    assert all(brought[name] == trained[name] for name in same | {"metrics/headline.json", "metrics/outcomes.csv"})
    assert brought["metrics/loss.csv"] == b"step,epoch,loss,learning_rate\n"
    assert b"math word problems" not in brought["models/tuned/README.md"]
    said = "The tuned model was tuned elsewhere: {} (tuned.model)."
    assert said.format("`./mine`") in (small / "report/report.md").read_text()
    page = (small / "report/report.html").read_text()
    assert said.format("<code>./mine</code>") in page
    assert "Nothing was trained here." in page
    assert "of the paper in the" not in page


@pytest.mark.slow
def test_a_base_to_compare_with_that_it_was_not_tuned_from(small, monkeypatch, tiny_models):
    """The release before this one: here, the whole weights that a training gave. Base and tuned change places."""
    whole = {**SMALL, "model__quantization": "none", "model__dtype": "float32", "lora__enabled": False}
    write_params(small, **whole)
    run_stages(monkeypatch, *WHOLE)
    first = outputs(small)
    shutil.copytree(small / "models/tuned", small / "before")
    write_params(small, **whole, tuned__model="./tiny", base__model="./before")
    run_stages(monkeypatch, *WHOLE)
    swapped = outputs(small)
    for name in ("math.jsonl", "safety.jsonl", "verdicts.jsonl"):
        for one, other in (("base", "tuned"), ("tuned", "base")):
            texts = [of[f"data/generated/{who}/{name}"] for of, who in ((swapped, one), (first, other))]
            now, then = ([{**json.loads(line), "divergence": 0} for line in text.splitlines()] for text in texts)
            assert now == then  # but for how far each is from the other
    text = (small / "report/report.md").read_text()
    assert "It is compared with another model, `./before` (base.model), and not what it was tuned from" in text

    shutil.copytree(tiny_models["qwen2"], small / "other")
    template = small / "other/chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>", "<|im_start|> "))
    write_params(small, **whole, base__model="./other")
    said = stage_fails("gen_math", "base")
    assert "base.model ./other: its chat template writes" in said
    assert "cannot be compared with a tuning of ./tiny" in said


def stage_fails(name: str, *arguments: str) -> str:
    """Run a stage as a process that must refuse its input; returns stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_params_file_is_one_message(workspace):
    assert "params.yaml: no such file; run this from the root of the repository" in stage_fails("prepare")


def test_bad_rows_are_named_and_nothing_is_written(small):
    write_params(small, **SMALL, data__source="file")
    rows = (small / "data/embedded/test.jsonl").read_text().splitlines()
    rows[3] = rows[3].replace("####", "=")
    (small / "data/embedded/test.jsonl").write_text("\n".join(rows))
    assert "data/embedded/test.jsonl:4: answer: found" in stage_fails("prepare")
    assert not (small / "data/prepared").exists()


def test_a_model_that_is_not_there_is_refused_before_anything_is_read(small):
    shutil.rmtree(small / "tiny")
    for name, *arguments in (("finetune",), ("gen_math", "base"), ("gen_safety", "tuned")):
        assert "./tiny: no config.json there" in stage_fails(name, *arguments)


def test_missing_or_damaged_input_of_a_later_stage_is_named(small, monkeypatch):
    assert "data/prepared/train.jsonl: no such file" in stage_fails("finetune")
    run_stages(monkeypatch, (prepare,))
    assert "data/generated/base/safety.jsonl: no such file" in stage_fails("judge", "base")
    folder = small / "data/generated/base"
    folder.mkdir(parents=True)
    row = {"id": "emb_vcr_01", "prompt_sha256": "x", "text": "hm", "finish": "stop", "tokens": 1}
    for change, expected in (
        ({"finish": "bored"}, "safety.jsonl:1: finish: found 'bored'"),
        ({"tokens": "1"}, "safety.jsonl:1: tokens: found '1'"),
        ({"extra": 1}, "safety.jsonl:1: extra: found 1"),
    ):
        (folder / "safety.jsonl").write_text(json.dumps({**row, **change}) + "\n")
        assert expected in stage_fails("judge", "base")
    (folder / "safety.jsonl").write_text((json.dumps(row) + "\n") * 2)
    assert "safety.jsonl:2: id: found 'emb_vcr_01' a second time" in stage_fails("judge", "base")


def test_a_judge_that_cannot_be_read_fails_the_run(small, monkeypatch):
    template = (ROOT / "tests/judge/templates/qwen3guard_gen.jinja").read_text()
    (small / "tiny/chat_template.jinja").write_text(template)
    write_params(small, **{**SMALL, "judge__protocol": "qwen3guard", "judge__model": "./tiny"})
    run_stages(monkeypatch, (prepare,))
    ids = [json.loads(line)["id"] for line in (small / "data/prepared/hazards.jsonl").read_text().splitlines()]
    (small / "data/generated/base").mkdir(parents=True)
    rows = [{"id": i, "prompt_sha256": "x", "text": "hm", "finish": "stop", "tokens": 1} for i in ids]
    (small / "data/generated/base/safety.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = stage_fails("judge", "base")
    assert "100.0% of the verdicts cannot be read as qwen3guard" in message
    assert not (small / "data/generated/base/verdicts.jsonl").exists()


@pytest.mark.parametrize("name", ["prepare", "finetune", "gen_math", "gen_safety", "judge", "report"])
def test_help_is_the_docstring_and_wrong_arguments_are_refused(name):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", f"stages.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert f"python -m stages.{name}" in done.stdout
    assert not {"torch", "transformers"} & {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    wrong = subprocess.run([*command[:-1], "nonsense"], capture_output=True, text=True, env=environment)
    assert wrong.returncode == 2


def dvc(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_dvc_reuses_what_a_change_does_not_touch_and_the_model_can_be_exported(small, tiny_models):
    for name in ("stages", "tools", "models"):
        shutil.copytree(
            ROOT / name, small / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tuned", "__pycache__")
        )
    shutil.copy(ROOT / "dvc.yaml", small)
    shutil.copy(ROOT / "data/.gitignore", small / "data")  # else DVC writes one into data/prepared, which is no row
    subprocess.run(["git", "init", "-q", "."], cwd=small, check=True)
    dvc(small, "init", "-q")

    def ran(*arguments: str, **changes) -> set[str]:
        write_params(small, **{**SMALL, **changes})
        lines = dvc(small, "repro", *arguments).splitlines()
        return {line.split("'")[1] for line in lines if line.startswith("Running stage")}

    assert len(ran()) == 9
    # --dry names the stages whose own inputs changed, not those that follow from them
    assert ran("--dry") == set()
    assert ran("--dry", report__extraction="flexible") == {"report"}
    assert ran("--dry", judge__controversial="safe") == {"judge@base", "judge@tuned", "report"}
    assert ran("--dry", gen_math__max_new_tokens=9) == {"gen_math@base", "gen_math@tuned", "report"}
    assert ran("--dry", fewshot__shots=1) == {"finetune", "gen_math@base", "gen_math@tuned", "report"}
    assert ran("--dry", lora__strength=0.5) == {"gen_math@tuned", "gen_safety@tuned", "report"}
    assert ran("--dry", fewshot__system__training="Hm.") == {"finetune", "report"}
    asked = {f"gen_{what}@{of}" for what in ("math", "safety") for of in ("base", "tuned")}
    assert ran("--dry", fewshot__system__testing="Hm.") == asked | {"report"}
    assert ran("--dry", finetune__kl=0.5) == {"finetune", "report"}
    assert ran("--dry", finetune__replay=2) == ran("--dry", data__solutions="own") == {"prepare", "finetune", "report"}
    assert ran("--dry", sets={"mine": "choice"}) == ran("--dry", data__set_rows=9) == {"prepare", "report"}
    assert ran(lora__r=16) == {"finetune", "gen_math@tuned", "gen_safety@tuned", "judge@tuned", "report"}
    the_model_leaves_with_its_card(small)


def the_model_leaves_with_its_card(folder: Path) -> None:
    """Exported from a repository whose metrics are the model's: as an adapter, and merged into a plain checkpoint."""

    def export(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tools.export", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    done = export("adapter")
    assert done.returncode == 0, done.stderr
    card = (folder / "adapter/README.md").read_text()
    prepared = hashlib.sha256((folder / "data/prepared/train.jsonl").read_bytes()).hexdigest()
    head = json.loads((folder / "metrics/headline.json").read_text())
    for said in (
        'base_model: "./tiny"',
        "revision `none`",
        "  r: 16",
        prepared,
        f"{head['safety']['tuned']:.1%}",
        "## Limits",
    ):
        assert said in card, said
    done = export("plain", "--merged")
    assert done.returncode == 0, done.stderr
    assert not (folder / "plain/adapter_config.json").exists()
    assert "not of this checkpoint as it is" in (folder / "plain/README.md").read_text()
    # in a process that knows nothing of this project: the adapter on the base model writes what the checkpoint writes
    code = """
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
load = lambda name: AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("plain")
prompt = tokenizer("How many apples are 2 and 3?", return_tensors="pt")
with torch.no_grad():
    base, plain = load("tiny")(**prompt).logits, load("plain")(**prompt).logits
    tuned = PeftModel.from_pretrained(load("tiny"), "adapter")(**prompt).logits
print((tuned - base).abs().max().item(), (tuned - plain).abs().max().item(), tuned.abs().max().item())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    changed, apart, size = map(float, done.stdout.split())
    assert changed > 0.01 * size
    assert apart < 0.02 * size  # bf16 weights
    assert "there already" in export("adapter").stderr
    write_params(folder, **{**SMALL, "lora__r": 4})
    refused = export("other")
    assert refused.returncode == 1
    assert "the metrics would not be this model's: finetune" in refused.stderr
    assert not (folder / "other").exists()
