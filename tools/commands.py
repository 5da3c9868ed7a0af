"""git and dvc as the tools call them: this environment's, with its Python first on PATH so that stages find it."""

import os
import subprocess
import sys
from pathlib import Path

from stages.lib.errors import BadInput


def git(*arguments: str) -> str:
    """Run git and return what it printed. Raises BadInput with its message if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BadInput(f"git {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout.strip()


def dvc(*arguments: str, capture: bool = False) -> str:
    """Run dvc and return what it printed, if that was captured. Raises BadInput if it fails."""
    done = run_dvc(*arguments, capture=capture)
    if done.returncode:
        said = f": {done.stderr.strip()}" if capture else ""
        raise BadInput(f"dvc {' '.join(arguments[:2])} failed with exit code {done.returncode}{said}")
    return done.stdout if capture else ""


def run_dvc(*arguments: str, capture: bool) -> subprocess.CompletedProcess[str]:
    """Run dvc, whatever becomes of it."""
    folder = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, capture_output=capture, text=True, env=environment)
