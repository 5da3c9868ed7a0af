"""Git as people have it: settings that rewrite files, repositories that git or DVC's library of it refuses."""

import subprocess
from pathlib import Path

from stages.lib.base.params import load_params
from stages.lib.data.sources import load_benign, load_hazards, load_problems
from tests.conftest import ROOT


def git(*arguments: str | Path, folder: Path = ROOT, given: str | None = None) -> str:
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=True).stdout


def test_a_clone_under_autocrlf_has_the_bytes_that_were_committed(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    git("clone", "--quiet", "--shared", "--config", "core.autocrlf=true", ROOT, clone)
    staged = [line.partition("\t") for line in git("ls-files", "--stage", folder=clone).splitlines()]
    committed = {path: entry.split()[1] for entry, _, path in staged}
    arrived = git("hash-object", "--no-filters", "--stdin-paths", folder=clone, given="\n".join(committed)).split()
    assert not [path for path, found in zip(committed, arrived, strict=True) if found != committed[path]]
    monkeypatch.chdir(clone)
    data = load_params().data  # each of the embedded files is known by its sha256
    assert len(load_problems(data, "train")) > len(load_problems(data, "test")) > 0
    assert load_hazards(data) and load_benign(data)
