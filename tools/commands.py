"""git, dvc and other commands as the tools call them, and DVC's Python API: what goes wrong is one message.

dvc is this environment's, with its Python first on PATH so that stages find it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput


def output(command: str, *arguments: str, missing: str = "install it", **options: Any) -> str:
    """What a command printed, read as UTF-8 whatever the locale. Raises BadInput, in the command's words, if it fails;
    where there is none of this name, with what is `missing`. `options` are subprocess.run's."""
    try:
        done = subprocess.run([command, *arguments], capture_output=True, **options)
    except FileNotFoundError:
        raise BadInput(f"{command}: not found; {missing}") from None
    if done.returncode:
        said = _text(done.stderr).strip() or f"ended with exit code {done.returncode} and said nothing"
        raise BadInput(f"{' '.join([command, *arguments[:2]])}: {said}")
    return _text(done.stdout)


def git(*arguments: str) -> str:
    """Run git and return what it printed. Raises BadInput with its message if it fails.

    Out of reach of Ctrl-C and of a kill of this process's group: half a commit would leave a locked index. (Not of a
    machine that goes down: git then says which lock file to remove.)
    """
    return output("git", *arguments, start_new_session=True).strip()


def dvc(*arguments: str, capture: bool = False, folder: Path | None = None) -> str:
    """Run dvc and return what it printed, if that was captured. Raises BadInput if it fails."""
    done = run_dvc(*arguments, capture=capture, folder=folder)
    if done.returncode:
        said = f": {done.stderr.partition('Having any troubles?')[0].strip()}" if capture else ""
        raise BadInput(f"dvc {' '.join(arguments[:2])} failed with exit code {done.returncode}{said}")
    return done.stdout if capture else ""


def run_dvc(*arguments: str, capture: bool, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run dvc (in another repository, if one is given), whatever becomes of it.

    On Ctrl-C it is waited for: DVC lets the stage at work end, then itself, and so nothing is left half-done.
    """
    own = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    pipe = subprocess.PIPE if capture else None
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, cwd=folder)
    try:
        said, failed = process.communicate()
    except KeyboardInterrupt:
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, _text(said or b""), _text(failed or b""))


@contextmanager
def dvcs_library(folder: Path = Path()) -> Iterator[None]:
    """Within: DVC's Python API at work on the repository in a folder. What it cannot do there is a BadInput, in git's
    own words where git refuses as well."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:  # DVC's own, and those of the libraries by which it reads git's files
        check_repository(folder)
        raise BadInput(
            f"{folder.resolve()}: DVC cannot read this repository: {type(error).__name__}: {str(error).strip()[:300]}"
        ) from error


def check_repository(folder: Path = Path()) -> None:
    """Refuse a repository that git refuses, in its words (another user's, say), and one that DVC cannot read."""
    if output("git", "rev-parse", "--show-object-format", cwd=folder).strip() == "sha256":
        raise BadInput(
            f"{folder.resolve()}: git names this repository's objects by sha256, which DVC cannot read. Make one of it "
            "that names them by sha1: git init --object-format=sha1 ../NEW && git fast-export --all | git -C ../NEW "
            'fast-import && git -C ../NEW switch "$(git branch --show-current)"'
        )


def _text(said: bytes) -> str:
    return said.decode("utf-8", errors="replace")
