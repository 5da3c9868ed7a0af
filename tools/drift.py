"""Do the committed dvc.lock and metrics belong to this code, these parameters and this data? Nothing is run.

    python -m tools.drift

Exit code 1 with the stages that would run again. A clone without DVC's cache will do. Takes a few seconds.
"""

import re
from collections.abc import Mapping
from typing import Any

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.dvc_lock import LOCK, parse_lock, recorded
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from tools.commands import dvcs_library, run_dvc


def main() -> None:
    no_arguments(__doc__)
    if gone := missing_files():
        raise BadInput(f"{', '.join(gone)}: not there, though dvc.yaml says that git keeps it; run `dvc repro`")
    if stale := stages_to_run():
        raise BadInput(
            f"dvc.lock and the metrics beside it are not of this code, params.yaml and data: {', '.join(stale)} would "
            "run again; run `dvc repro` and commit dvc.lock, metrics/ and report/"
        )
    print("drift: dvc.lock and metrics agree with code, parameters and data")


def missing_files() -> list[str]:
    """Outputs that are kept in git, not in the cache, and are not there."""
    from dvc.repo import Repo

    with dvcs_library():
        return [str(out) for out in Repo().index.outs if not out.use_cache and not out.exists]


def stages_to_run() -> list[str]:
    """The stages that `dvc repro` would run, though the outputs themselves may be missing."""
    lock = parse_lock(read_text(LOCK), str(LOCK))
    return list(dict.fromkeys([*stages_dvc_would_run(), *stages_that_saw_other_files(lock)]))


def stages_that_saw_other_files(lock: Mapping[str, Any]) -> list[str]:
    """The stages by whose record in dvc.lock a file that another stage wrote was another one when they read it.

    `dvc repro --allow-missing` (3.67) leaves out what lies in a folder, where the cache does not have it.
    """
    wrote = recorded(lock, "outs")
    found = []
    for name, stage in lock["stages"].items():
        for path, md5 in recorded({"stages": {name: stage}}, "deps").items():
            inside = {out[len(path) + 1 :]: value for out, value in wrote.items() if out.startswith(f"{path}/")}
            expected = wrote.get(path) or (folder_md5(inside) if inside else md5)
            if md5 != expected:
                found.append(name)
    return list(dict.fromkeys(found))


def folder_md5(files: Mapping[str, str]) -> str:
    """What DVC records of a folder with these files (by their place in it, with their md5)."""
    from dvc_data.hashfile.tree import Tree

    tree = Tree.from_list([{"relpath": path, "md5": md5} for path, md5 in files.items()], hash_name="md5")
    tree.digest()
    return tree.hash_info.value


def stages_dvc_would_run() -> list[str]:
    """Those that DVC names, asked not to miss what only the cache has."""
    done = run_dvc("repro", "--dry", "--allow-missing", capture=True)
    stale = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage '")]
    if done.returncode:
        # it stops at the first stage that it would have to run from files that only the cache has
        first = re.search(r"failed to reproduce '([^']+)': \[Errno 2\]", done.stderr)
        if not first:
            raise BadInput(f"dvc repro --dry failed with exit code {done.returncode}: {done.stderr.strip()}")
        stale.append(first[1])
    return stale


if __name__ == "__main__":
    run(main)
