"""Work in progress of a stage: killed at any moment, it goes on where it was and ends with an unbroken run's bytes.

DVC deletes a stage's outputs before it starts the stage, so this lies beside them: .ckpt/<stage>/<key>/ in the
repository in which dvc was called (temp runs too), ignored by git. The key is a hash of everything that decides the
result: parameters, input files, the model's files, this code, the libraries and the kind of machine; another
configuration never takes it over. One process at a time uses a folder: a second one, of an experiment that has this
work in common with another, say, waits, and then finds the first one's finished parts. Every file in it carries its
hash; a damaged one is not used.

A finished stage's folder stays until the report stage, because DVC can be killed between the end of a stage and its own
note of it; one that serves other runs, too (what the untuned model says of training rows), stays after it. A stage
keeps its KEPT latest folders at most.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel

from stages.lib.base.files import files_in, sha256_file, sha256_text, write_text
from stages.lib.base.made import LIBRARIES
from stages.lib.base.processes import count, from_first, is_first, wait
from stages.lib.base.waiting import held

KEPT = 3
CODE = Path(__file__).parents[2]


def root() -> Path:
    """Where all stages keep their unfinished work; DVC says in which repository it was called."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".ckpt"


@contextmanager
def unfinished(
    stage: str, params: Mapping[str, BaseModel], inputs: Sequence[Path], lasting: bool = False
) -> Iterator[Path]:
    """The folder for the work of `stage` under `params` on `inputs` (files, or folders with all in them).

    Its processes share it; all leave when the first one does. Waits while another run is at the same work. What is
    `lasting` stays when it is finished, for other runs that need some of it.
    """
    if not is_first():
        yield from_first(None)
        wait()
        return
    key = _key(stage, params, inputs)
    folder = root() / stage / key
    busy = f"{stage}: this very work, with the same parameters, data and code, is being done already"
    with held(_lock_file(folder), busy, holder=folder / "pid"):  # whose time makes this the folder used last
        for old in _latest(folder.parent, but=folder)[KEPT - 1 :]:
            _remove(old)
        yield from_first(folder)
        if not lasting:
            write_text(folder / "done", "")
        wait()


def clear_finished() -> None:
    """Remove what finished stages kept, in the knowledge that DVC has their outputs."""
    for done in list(root().glob("*/*/done")):
        _remove(done.parent)


def write_part(folder: Path | None, name: str, value: Any) -> None:
    """Keep a finished part of the work, a JSON value, under a name in a folder (if there is one)."""
    if folder:
        text = json.dumps(value)
        write_text(folder / f"{name}.json", f"{sha256_text(text)}\n{text}\n")


def read_part(folder: Path | None, name: str) -> Any:
    """What `write_part` kept, or None. A damaged part is removed, with a word on stderr."""
    path = folder / f"{name}.json" if folder else None
    if not path or not path.is_file():
        return None
    digest, _, text = path.read_bytes().partition(b"\n")
    if hashlib.sha256(text.removesuffix(b"\n")).hexdigest().encode() != digest:
        print(f"{path}: damaged (its sha256 is not the one it was written with); done again", file=sys.stderr)
        path.unlink()
        return None
    return json.loads(text)


def _key(stage: str, params: Mapping[str, BaseModel], inputs: Sequence[Path]) -> str:
    code = sorted(CODE.rglob("*.py"))
    decided = {
        "stage": stage,
        "params": {name: section.model_dump() for name, section in params.items()},
        "inputs": [
            # relative, because a temp run of DVC is in another folder each time
            [{str(file.relative_to(path)): sha256_file(file)} for file in files_in(path)]
            for path in inputs
        ],
        "code": {str(file.relative_to(CODE)): sha256_file(file) for file in code},
        "libraries": {name: version(name) for name in (*LIBRARIES, "accelerate")},  # by which Trainer trains
        "machine": _machine(),
    }
    return sha256_text(json.dumps(decided, sort_keys=True))[:16]


def _machine() -> list[Any]:
    """What of the machine changes the last bits of a result."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(0), count()]
    return [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), count()]


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _latest(stage: Path, but: Path | None = None) -> list[Path]:
    """The folders of a stage, the one used last first."""
    folders = [path for path in stage.iterdir() if path.is_dir() and path != but]
    return sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)


def _remove(folder: Path) -> None:
    """Remove a folder and its lock, unless a process is at work in it."""
    lock = FileLock(_lock_file(folder))
    with suppress(Timeout), lock.acquire(timeout=0):
        shutil.rmtree(folder)
        Path(lock.lock_file).unlink()
