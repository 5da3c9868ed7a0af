"""A shared DVC remote, in S3 and in a folder: a second person's clone gets what ten runs made, and computes nothing."""

import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.conftest import ROOT, Repository

pytestmark = pytest.mark.slow

NAMES = [f"run{n:02d}-embedded" for n in range(1, 11)]


@pytest.fixture(params=["s3", "folder"])
def remote(request, tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """A DVC remote: its address, what `dvc remote modify` must know, and what lies in it."""
    if request.param == "folder":
        files = tmp_path / "shared"
        yield SimpleNamespace(url=str(files), options={}, count=lambda: sum(f.is_file() for f in files.rglob("*")))
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=address)
    client.create_bucket(Bucket="runs")
    yield SimpleNamespace(
        url="s3://runs/cache",
        options={"endpointurl": address},
        count=lambda: client.list_objects_v2(Bucket="runs").get("KeyCount", 0),
    )
    server.stop()


def test_a_second_persons_clone_gets_the_outputs_of_ten_runs(repository, remote, tmp_path):
    first, origin = Repository(tmp_path / "first"), tmp_path / "origin.git"
    shutil.copytree(repository.folder, first.folder)
    first.run("git", "init", "--quiet", "--bare", str(origin))
    first.run("git", "remote", "add", "origin", str(origin))
    first.run("dvc", "remote", "add", "--default", "shared", remote.url)
    for option, value in remote.options.items():
        first.run("dvc", "remote", "modify", "shared", option, value)
    first.run("git", "commit", "--quiet", "--all", "--message", "Where outputs are shared")
    for name in NAMES:  # as `tools.runs run` leaves them, but for the hours of a GPU
        (first.folder / "models/tuned/README.md").write_text(name)
        first.run("dvc", "commit", "--quiet", "--force", "finetune")
        first.run("dvc", "exp", "save", "--name", name)
    first.run("git", "checkout", "--quiet", "--", ".")
    first.run("dvc", "checkout", "--quiet")
    first.run("git", "push", "--quiet", "origin", "main")
    first.run("dvc", "push")
    first.run("dvc", "exp", "push", "origin", *NAMES)
    assert remote.count() > len(NAMES)
    shutil.rmtree(first.folder / ".dvc/cache")  # nothing comes from here any more

    first.run("git", "clone", "--quiet", "--branch", "main", str(origin), str(tmp_path / "second"))
    second = Repository(tmp_path / "second")
    second.run("dvc", "pull")
    assert (second.folder / "models/tuned/README.md").read_text() == "main"
    assert "up to date" in second.run("dvc", "status")
    second.run("dvc", "exp", "pull", "origin", *NAMES)
    for name in NAMES:
        second.run("dvc", "exp", "apply", name)
        assert (second.folder / "models/tuned/README.md").read_text() == name
        assert (second.folder / "data/generated/tuned/verdicts.jsonl").is_file()


def test_no_remote_is_set_up_in_this_repository():
    """Nothing of anybody's goes anywhere unless they say so."""
    assert "remote" not in (ROOT / ".dvc/config").read_text()
