"""Do the committed dvc.lock and metrics belong to this code, these parameters and this data? Nothing is run.

    python -m tools.drift

Exit code 1 with the stages that would run again, or with the answers that were, by metrics/made.json, made otherwise
than they would be now; libraries that are not those of requirements.lock are said. A clone without DVC's cache will do.
Takes a few seconds.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.dvc_lock import LOCK, parse_lock, recorded
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from stages.lib.base.made import ENGINE, NO_MODEL, Differences, Made, differences
from stages.lib.base.measured import SETS, SUBJECTS
from stages.lib.base.model_names import is_folder
from stages.lib.base.params import Params, load_params
from stages.lib.base.rows import check_row
from stages.lib.base.sections import started_from
from stages.lib.model.provenance import content
from tools.commands import dvcs_library, run_dvc

MADE, PINNED = Path("metrics/made.json"), Path("requirements.lock")
VERDICTS = SETS["hazards"].verdicts
FILES = (*dict.fromkeys(of.answers for of in SETS.values()), VERDICTS)
AGAIN = "Run the stages that write them again, `dvc repro --force STAGE@SUBJECT ...`, then `dvc repro`, and commit"


def main() -> None:
    no_arguments(__doc__)
    if gone := missing_files():
        raise BadInput(f"{', '.join(gone)}: not there, though dvc.yaml says that git keeps it; run `dvc repro`")
    if stale := stages_to_run():
        raise BadInput(
            f"dvc.lock and the metrics beside it are not of this code, params.yaml and data: {', '.join(stale)} would "
            "run again; run `dvc repro` and commit dvc.lock, metrics/ and report/"
        )
    other = made_otherwise(load_params())
    if other.incomparable:
        raise BadInput("\n       ".join([*other.incomparable, AGAIN]))
    print("\n".join(["drift: dvc.lock and metrics agree with code, parameters and data", *other.noted]))


def made_otherwise(params: Params) -> Differences:
    """How answers and verdicts of metrics/made.json were made, against how this code would make them with these
    parameters and the libraries of requirements.lock: what makes them incomparable, and what is worth a word."""
    try:
        made_by = json.loads(read_text(MADE))
        files = {(of, file): check_row(Made, made_by[of][file], str(MADE)) for of in SUBJECTS for file in FILES}
    except (ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{MADE}: not as the report stage writes it ({error!r}); run `dvc repro report`") from None
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", read_text(PINNED), re.MULTILINE))
    found = Differences([], [])
    for (subject, file), made in files.items():
        now = differences(made, made_here(made, params, subject, file == VERDICTS, pinned))
        for said, into in ((now.incomparable, found.incomparable), (now.noted, found.noted)):
            if said:
                into.append(f"{MADE}: {file} of {subject} was made otherwise (then, now): {'; '.join(said)}")
    return found


def made_here(made: Made, params: Params, subject: str, of_judge: bool, pinned: Mapping[str, str]) -> Made:
    """How the same answers or verdicts would be made now, as far as that is known without loading a model; the rest, as
    which processor it is, stays as it was."""
    judge, model = params.judge, started_from(subject, params.model, params.base)
    name, revision, settings = (judge.model, judge.revision, judge) if of_judge else (model.name, model.revision, model)
    if name is None:
        return NO_MODEL
    known = {"model": name, "revision": revision, "quantization": settings.quantization, "engine": ENGINE}
    served = params.generate.engine == "server"
    if served:  # in what it computes, it alone knows; but it is not our engine
        known = {"model": name, "revision": revision, **({"engine": "a server"} if made.engine == ENGINE else {})}
    if name.startswith("embedded/") or (is_folder(name) and Path(name).is_dir()):
        known["content"] = content(name, revision)
    if not served and not of_judge and (model.dtype, made.dtype) != ("bfloat16", "float32"):  # a CPU without 16 bits
        known["dtype"] = model.dtype
    libraries = {
        library: found if found.partition("+")[0] == pinned.get(library) else pinned.get(library)  # torch 2.13.0+cpu
        for library, found in made.libraries.items()
    }
    return made.model_copy(update={**known, "libraries": libraries})


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
