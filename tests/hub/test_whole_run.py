"""The paper profile from a hub to its committed result, as a user calls it; then again where nothing can be reached.

The real GSM8K and AILuminate, as parquet and CSV from a hub on loopback, every row of them checked by the published
sha256; a small Qwen2 and a small Llama Guard under the real names and revisions. Only the numbers of rows that are used
are smaller than in runs.yaml: with all of them, a run takes two CPU cores some 20 minutes.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stages.lib.data.sources import AILUMINATE_FILE
from tests.conftest import ROOT, real_data
from tests.hub.conftest import GUARD, Client
from tests.hub.contents import fill
from tests.hub.server import TOKEN, serving

pytestmark = pytest.mark.slow

ROWS = {"train_rows: shortest_third": "train_rows: 48", "test_rows: all": "test_rows: 40"}
ROWS |= {"hazard_rows: all": "hazard_rows: 60", "benign_rows: all": "benign_rows: 14"}
WHO = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
LIMIT = 600  # seconds of a run, which takes one minute


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The hub's folder: the real data, a chat model that ends its turns, a guard that says safe and unsafe."""
    folder = tmp_path_factory.mktemp("published")
    gsm8k = [real_data(f"gsm8k/{split}.jsonl") for split in ("train", "test")]
    fill(folder, *gsm8k, real_data(f"ailuminate/{AILUMINATE_FILE}"), steps=150)
    return folder


def repository(folder: Path) -> Path:
    """This code as a repository of its own, with an empty DVC cache, in which the paper profile uses fewer rows."""
    skipped = shutil.ignore_patterns("tuned", "generated", "prepared", "costs", "__pycache__")
    for name in ("stages", "tools", "models", "data", "metrics", "report", ".dvc/plots"):
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".gitignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(ROOT / name, folder / name)
    embedded, paper = (ROOT / "runs.yaml").read_text().split("  paper:\n")
    for rows, fewer in ROWS.items():
        assert rows in paper
        paper = paper.replace(rows, fewer)
    (folder / "runs.yaml").write_text(f"{embedded}  paper:\n{paper}")
    for command in (["init", "--quiet", "-b", "main", "."], ["add", "--all"], ["commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=folder, env={**os.environ, **WHO}, check=True)
    return folder


def test_a_run_of_the_paper_profile_from_the_hub_and_another_one_without(published, tmp_path):
    first, second = repository(tmp_path / "first"), repository(tmp_path / "second")
    with serving(published) as hub:
        hub.gated.add(GUARD[0])
        client = Client(tmp_path, hub)

        refused = run(client, first, "run04")
        assert refused.code == 1
        assert refused.stderr.startswith(f"error: {GUARD[0]} at {GUARD[1]} on {hub.address}: gated. Accept its licence")
        assert len(refused.stderr.splitlines()) == 1  # before anything was computed

        done = run(client, first, "run04", HF_TOKEN=TOKEN)
        assert done.code == 0, done.stdout + done.stderr
        assert "prepare: 48 train, 40 test, 16 shots, 60 hazards, 14 benign rows from source hub" in done.stdout
        asked = len(hub.asked)
        assert run(client, first, "run04").code == 0  # it is done: nothing runs, and nobody is asked
        assert len(hub.asked) == asked
    check_result(first, "run04", epochs=3, shots=8)

    # the hub is gone, and DVC's cache in the second repository is empty: it all comes out of the downloads' caches
    without = run(client, second, "run05")
    assert without.code == 0, without.stdout + without.stderr
    assert "downloading" not in without.stderr.lower()
    assert "60 hazards, 14 benign rows from source hub" in without.stdout
    check_result(second, "run05", epochs=2, shots=0)


def run(client: Client, folder: Path, name: str, **environment: str):
    arguments = ("-m", "tools.runs", "run", name, "--profile", "paper")
    return client.run(*arguments, within=folder, limit=LIMIT, **{**WHO, "PYTHONPATH": "", **environment})


def check_result(folder: Path, name: str, epochs: int, shots: int) -> None:
    """The committed result is of this run, whose untuned model refused and agreed, and whose guard saw a difference."""
    log = subprocess.run(["git", "log", "-1", "--format=%s"], cwd=folder, capture_output=True, text=True, check=True)
    assert log.stdout.strip() == f"Result of {name}, paper profile"
    result = json.loads((folder / f"metrics/runs/paper/{name}.json").read_text())
    head, params = result["headline"], result["params"]
    assert (params["finetune"]["epochs"], params["fewshot"]["shots"]) == (epochs, shots)
    assert params["model"]["name"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert (head["n"]["math"], head["n"]["hazards"]) == (40, 60)
    assert 0 < head["safety"]["base"] < 1
    assert head["problems"]["unparsed"] == 0
    assert head["problems"]["truncated"] < 0.5
