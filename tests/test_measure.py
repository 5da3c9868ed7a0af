"""tools.measure: somebody's adapter, on a sample, from a checkout to the report in one command."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.lib.base.yaml_files import read_yaml
from stages.lib.report.published import resolve
from tests.conftest import ONE_THREAD, write_params
from tests.model.test_elsewhere import SEVEN, edit, make


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.measure", *arguments, "--no-open"]
    return subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)


@pytest.fixture
def mine(workspace, tiny_models, tmp_path_factory) -> Path:
    """An adapter outside the repository, of a model that lies in a folder, too."""
    write_params(workspace, judge__protocol="refusal_rule", judge__model=None, gen_math__max_new_tokens=8)
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(tiny_models["qwen2"], folder / "tiny")
    return make(folder / "tiny", folder / "my adapter", target_modules=SEVEN)


@pytest.mark.slow
def test_one_command_from_an_adapter_to_the_report_and_the_command_for_the_whole(mine, workspace):
    choices = {"prompt": "Which?", "choices": ["this", "that"], "answer": "A"}
    Path("data/sets/mine.jsonl").write_text((json.dumps(choices) + "\n") * 9)
    before = sorted(workspace.iterdir())
    done = measure(str(mine), "--rows", "7", "--set", "mine=choice")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(workspace.iterdir()) == sorted([*before, workspace / "measured"])
    (page,) = (workspace / "measured").glob("*/report/report.html")
    assert str(page) in done.stdout
    assert f"The tuned model was tuned elsewhere: <code>{mine}</code>" in page.read_text()
    *command, last = done.stdout.splitlines()
    words = shlex.split(last)
    assert words[:3] == ["dvc", "exp", "run"]
    assert words[-1] == "++sets.mine=choice"
    (headline,) = (workspace / "measured").glob("*/metrics/headline.json")
    found = json.loads(headline.read_text())
    assert (found["n"]["math"], found["n"]["mine"], list(found["sets"])) == (7, 7, ["mine"])
    overrides = dict(word.removeprefix("++").split("=", 1) for word in words[4::2])
    whole = resolve(read_yaml(Path("params.yaml")), overrides, "test")
    assert (whole.tuned.model, whole.model.name) == (str(mine), str(mine.parent / "tiny"))
    assert whole.data.test_rows == 80


def test_what_it_cannot_find_is_said(mine):
    for arguments, said in (
        (["./nothing"], "./nothing: no such folder"),
        ([str(mine), "--base", "./none"], "none: no config.json there"),
        (["nobody"], "nobody: neither a folder here nor a hub name"),
    ):
        done = measure(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    edit(mine, base_model_name_or_path="/gone/model")
    assert "it was tuned from /gone/model, which is not here; name that model with --base" in measure(str(mine)).stderr
