"""Whatever a stage reads is one of its dependencies: other content there, and DVC and drift know of it."""

import sys
from os.path import normpath

import pytest
from ruamel.yaml import YAML

from stages import finetune, gen_math, gen_safety, judge
from stages.lib.base.files import write_text
from stages.lib.base.params import load_params
from stages.lib.model.sources import own_files
from tests.conftest import ROOT, write_params

FILE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage.get("do", stage) for name, stage in FILE["stages"].items()}
FOLDERS = {"model__name": "./mine", "judge__model": "../guard"}
FILES = {"model__name": "embedded/smollm2-135m", "judge__model": "embedded/guard"}


class Begun(Exception):
    """Raised in place of a stage's beginning, with its task."""


@pytest.mark.parametrize("models", [FOLDERS, FILES], ids=["folders", "embedded"])
@pytest.mark.parametrize("stage", [finetune, gen_math, gen_safety, judge], ids=lambda stage: stage.__name__)
def test_what_a_task_is_decided_by_is_what_dvc_is_told_of(workspace, monkeypatch, stage, models):
    def begin(task, processes):
        raise Begun(task)

    monkeypatch.setattr(stage, "begin", begin)
    write_params(workspace, **models)
    params, name = load_params(), stage.__name__.rpartition(".")[2]
    for subject in [()] if stage is finetune else [("base",), ("tuned",)]:
        monkeypatch.setattr(sys, "argv", [name, *subject])
        with pytest.raises(Begun) as begun:
            stage.main()
        (task,) = begun.value.args
        values = {f"${{{name}.files}}": getattr(params, name).files for name in ("model", "tuned", "base", "judge")}
        if subject:
            values["${item.file}"] = FILE["vars"][0]["subjects"][subject[0]]["file"]
        told = {dep.replace("${key}", *subject) if subject else dep for dep in STAGES[name]["deps"]}
        told = {dep.replace("${item.subject}", *subject) if subject else dep for dep in told}
        told = {normpath(values.get(dep, dep)) for dep in told}
        own = [path.relative_to(ROOT) if path.is_relative_to(ROOT) else path for path in own_files(task.model)]
        assert {normpath(path) for path in [*task.files, *task.folders, *own]} <= told


@pytest.mark.parametrize("where", ["in the repository", "through a link"])
def test_other_weights_in_a_models_folder_are_a_change(own, tmp_path, where):
    name = "./mine"
    if where == "through a link":
        name = "./link"
        (tmp_path / "outside").mkdir()
        (own.folder / name).symlink_to(tmp_path / "outside")
    own.measure(where, right=40, safe=80, model__name=name)
    assert "agree with code, parameters and data" in own.run("python", "-m", "tools.drift")
    (own.folder / name / "model.safetensors").write_text("other weights\n")
    would = own.run("python", "-m", "tools.drift", code=1)
    for stage in ("finetune", "gen_math@base", "gen_math@tuned", "gen_safety@base", "gen_safety@tuned"):
        assert stage in would


def test_other_weights_of_ones_own_are_a_change_and_another_base_to_compare_with_is_none_of_the_tuned_model(own):
    write_text(own.folder / "mine/adapter_model.safetensors", "weights\n")
    own.measure("mine", right=40, safe=80, tuned__model="./mine")
    assert "agree with code, parameters and data" in own.run("python", "-m", "tools.drift")
    (own.folder / "mine/adapter_model.safetensors").write_text("other weights\n")
    would = own.run("python", "-m", "tools.drift", code=1)
    assert "finetune would run again" in would
    own.run("git", "checkout", "--quiet", "mine")
    whole = dict.fromkeys(("data__test_rows", "data__hazard_rows", "data__benign_rows"), "all")
    judge = {"judge__protocol": "refusal_rule", "judge__model": None}
    write_params(own.folder, tuned__model="./mine", base__model="o/b", base__revision="a" * 40, **whole, **judge)
    would = own.run("python", "-m", "tools.drift", code=1)
    assert "gen_math@base, gen_safety@base" in would
    assert "gen_math@tuned" not in would  # its responses are told how far it is from that model
