"""Git as people have it: settings that rewrite files, repositories that git or DVC's library of it refuses."""

import os
import subprocess
from pathlib import Path

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import load_params
from stages.lib.data.sources import load_benign, load_hazards, load_problems
from tests.conftest import ROOT
from tools import commands
from tools.drift import missing_files
from tools.review.revisions import open_revision


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


def repository(folder: Path, *options: str) -> Path:
    """A repository of git and DVC with one commit."""
    git("init", "--quiet", *options, folder)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").touch()
    git("add", "--all", folder=folder)
    git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", "one", folder=folder)
    return folder


def test_a_repository_that_dvc_cannot_read_is_one_message_and_its_advice_helps(tmp_path):
    old = repository(tmp_path / "old", "--object-format=sha256")
    with pytest.raises(BadInput, match=r"old: git names this repository's objects by sha256") as refused:
        open_revision("HEAD", old)
    with pytest.raises(BadInput, match="objects by sha256"):
        commands.check_repository(old)
    subprocess.run(str(refused.value).partition("sha1: ")[2], shell=True, cwd=old, capture_output=True, check=True)
    made = open_revision("HEAD", tmp_path / "NEW")
    assert made.repo.get_rev() == git("rev-parse", "HEAD", folder=tmp_path / "NEW").strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_repository_of_another_user_is_one_message_in_gits_words(tmp_path):
    folder = repository(tmp_path / "theirs")
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    with pytest.raises(BadInput, match="dubious ownership(.|\n)*git config --global --add safe.directory .*theirs"):
        open_revision("HEAD", folder)
    with pytest.raises(BadInput, match="dubious ownership"):
        commands.check_repository(folder)


def test_what_is_no_repository_or_not_of_dvc_is_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for use in (missing_files, lambda: open_revision("HEAD")):
        with pytest.raises(BadInput, match="not a git repository"):
            use()
    repository(tmp_path)
    assert missing_files() == []
    with pytest.raises(BadInput, match="nonsense: no commit, branch, tag or experiment of this name"):
        open_revision("nonsense")
    (tmp_path / "dvc.yaml").write_text("stages: [")
    with pytest.raises(BadInput, match="DVC cannot read this repository: .*dvc.yaml"):
        missing_files()


def test_a_command_that_is_missing_fails_or_says_odd_things_is_one_message(monkeypatch):
    assert commands.output("printf", "a\\r\\n\\377") == "a\r\n\ufffd"  # no line end is changed, no byte stops it
    with pytest.raises(BadInput, match="false: ended with exit code 1 and said nothing"):
        commands.output("false")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match="git: not found; install it"):
        commands.git("status")
