"""git and dvc as the tools call them: this environment's, with its Python first on PATH so that stages find it."""

import os
import subprocess
import sys
from pathlib import Path

from stages.lib.base.errors import BadInput


def git(*arguments: str) -> str:
    """Run git and return what it printed. Raises BadInput with its message if it fails.

    Out of reach of Ctrl-C and of a kill of this process's group: half a commit would leave a locked index. (Not of a
    machine that goes down: git then says which lock file to remove.)
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise BadInput(f"git {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


def dvc(*arguments: str, capture: bool = False, folder: Path | None = None) -> str:
    """Run dvc and return what it printed, if that was captured. Raises BadInput if it fails."""
    done = run_dvc(*arguments, capture=capture, folder=folder)
    if done.returncode:
        said = f": {done.stderr.strip()}" if capture else ""
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
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=folder)
    try:
        said, failed = process.communicate()
    except KeyboardInterrupt:
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, said, failed)
