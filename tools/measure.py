"""What did a tuning that you have already do? The untuned and the tuned model on a small sample, and the report opened.

    python -m tools.measure ADAPTER                     a folder, or a hub name, of an adapter or whole weights
    python -m tools.measure ADAPTER --base NAME         tuned from this model, where the adapter does not name it
    python -m tools.measure ADAPTER --rows 64           on a larger sample
    python -m tools.measure ADAPTER --set arc=choice    and on data/sets/arc.jsonl, questions of your own

Runs the six stages in measured/NAME, as params.yaml says but on a sample of the data; git and DVC see none of it.
Takes some two minutes for the default model on two CPU cores. Killed, the same command goes on where it was. At its
end stands the command that measures all of the data, and keeps it.
"""

import argparse
import multiprocessing
import os
import re
import runpy
import shutil
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_text
from stages.lib.base.measured import SUBJECTS
from stages.lib.base.model_names import NO_FILES, is_folder
from stages.lib.base.params import Params, load_params
from stages.lib.base.yaml_files import dump_yaml, read_yaml
from stages.lib.fetch.hub import latest, tuned_folder
from stages.lib.report.published import resolve

ROOT = Path(__file__).parents[1]
FOLDER = Path("measured")
HUB_NAME = r"[\w.-]+/[\w.-]+"
TOKENS = 128  # in an answer, at most: enough to see it begin to solve or to refuse


def main() -> None:
    arguments = parse_arguments()
    params = load_params()
    models = which_models(arguments, params)
    folder = FOLDER / re.sub(r"\W+", "-", models["tuned.model"]).strip("-")
    lay_out(folder, sample(models, arguments.rows, {**params.sets, **arguments.sets}, params))
    asked = [(stage, subject) for stage in ("gen_math", "gen_safety", "judge") for subject in SUBJECTS]
    run_stage(folder, "prepare")  # refuses what is wrong with the data before anything heavy is loaded
    libraries()
    for stage in [("finetune",), *asked, ("report",)]:
        run_stage(folder, *stage)
    page = (folder / "report/report.html").resolve()
    print(f"\n{page} shows every prompt and both models' answers.")
    if arguments.open:
        webbrowser.open(page.as_uri())
    known = params.model_dump()
    said = {name: value for name, value in models.items() if value != known[name.split(".")[0]][name.split(".")[1]]}
    said = {name: value or "null" for name, value in said.items()}
    said |= {f"++sets.{name}": answer for name, answer in arguments.sets.items()}
    settings = " ".join("-S " + quote(f"{name}={value}") for name, value in said.items())
    print(f"So few prompts show large changes only. All of them, kept by DVC:\n\ndvc exp run {settings}")


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("adapter", help="a folder, or owner/name on the hub")
    top.add_argument("--revision", help="of the hub's, a full commit hash [the latest]")
    top.add_argument("--base", help="the model it was tuned from [as it says, else params.yaml's model.name]")
    top.add_argument("--base-revision", help="of a hub's, a full commit hash [the latest]")
    top.add_argument("--rows", type=int, default=14, help="math questions, and hazard prompts [14]")
    top.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="NAME=ANSWER",
        help="ask data/sets/NAME.jsonl, too; ANSWER: number, choice, text or judged",
    )
    top.add_argument("--no-open", dest="open", action="store_false", help="do not open the report")
    arguments = top.parse_args()
    arguments.sets = dict(each.partition("=")[::2] for each in arguments.sets)
    return arguments


def is_path(name: str) -> bool:
    """Whether a name given by hand is of a folder here; DVC's parameters have such a name begin with ./ or /."""
    return is_folder(name) or Path(name).is_dir()


def which_models(arguments: argparse.Namespace, params: Params) -> dict[str, Any]:
    """The overrides of params that name the tuned model and the model that it was tuned from."""
    tuned = named(arguments.adapter, arguments.revision)
    if is_folder(tuned[0]):
        folder = Path(tuned[0])
        if not folder.is_dir():
            raise BadInput(f"{arguments.adapter}: no such folder")
    else:
        folder = tuned_folder(*tuned)
    name, revision = base_of(folder, arguments, params)
    return {
        "model.name": name,
        "model.files": files(name),
        "model.revision": revision,
        "tuned.model": tuned[0],
        "tuned.files": files(tuned[0]),
        "tuned.revision": tuned[1],
    }


def base_of(folder: Path, arguments: argparse.Namespace, params: Params) -> tuple[str, str | None]:
    """Name and revision of what the model in a folder was tuned from: as given, else as it says, else params.yaml's."""
    from stages.lib.model.adapters import is_named, without_bits
    from stages.lib.model.embedded import SETTINGS
    from stages.lib.model.models import read_settings

    settings = read_settings(folder) if (folder / SETTINGS).is_file() else {}
    says, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if arguments.base:
        return named(arguments.base, arguments.base_revision)
    if not says or is_named(params.model.name, str(says)):
        return named(params.model.name, params.model.revision)
    if whole := without_bits(str(says)):  # its weights in four bits would not be quantized as params.yaml says
        return named(whole, None)
    if Path(str(says)).is_dir() or re.fullmatch(HUB_NAME, str(says)):
        return named(str(says), revision)
    raise BadInput(f"{folder}: it was tuned from {says}, which is not here; name that model with --base")


def named(name: str, revision: str | None) -> tuple[str, str | None]:
    """A model as params name it: a folder from the root of the disk, a hub's at a commit."""
    if is_path(name):
        return str(Path(name).resolve()), None
    if name.startswith("embedded/"):
        return name, None
    if not re.fullmatch(HUB_NAME, name):
        raise BadInput(f"{name}: neither a folder here nor a hub name (owner/name)")
    return name, revision or latest(name)


def files(name: str) -> str:
    """The folder by which DVC knows a model."""
    return name if is_folder(name) else NO_FILES


def sample(models: Mapping[str, Any], rows: int, sets: Mapping[str, str], params: Params) -> Params:
    """params.yaml's, for these models, sets and so many rows, with paths that hold in another folder."""
    changes = {**models, "finetune.replay": 0, "lora.strength": 1}  # nothing is trained, and all of it is measured
    changes |= {"data.test_rows": rows, "data.hazard_rows": rows, "data.benign_rows": max(14, rows // 2)}
    changes |= {"sets": dict(sets), "data.set_rows": rows}
    for stage, settings in (("gen_math", params.gen_math), ("gen_safety", params.gen_safety)):
        changes[f"{stage}.max_new_tokens"] = min(TOKENS, settings.max_new_tokens)
    for section, own in (("judge", params.judge), ("base", params.base)):
        if is_folder(own.model or ""):
            changes |= dict.fromkeys((f"{section}.model", f"{section}.files"), str(Path(own.model).resolve()))
    if params.data.source != "embedded":
        paths = params.data.files.model_dump().items()
        changes |= {f"data.files.{name}": str(Path(path).resolve()) for name, path in paths}
    return resolve(read_yaml(Path("params.yaml")), changes, "tools.measure")


def lay_out(folder: Path, params: Params) -> None:
    """A folder in which the stages find what they read: the parameters, the data, an untuned model's empty folder."""
    (folder / "models/base").mkdir(parents=True, exist_ok=True)
    for data in ("data/embedded", "data/sets"):
        shutil.copytree(data, folder / data, dirs_exist_ok=True)
    shutil.copy("runs.yaml", folder)
    write_text(folder / "params.yaml", dump_yaml(params.model_dump()))


def libraries() -> None:
    """What most stages import: once here, and not again in each, which takes 8 s on a CPU."""
    from stages.lib.model.device import quiet

    quiet()
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    import stages.lib.generate.subjects  # noqa: F401


def run_stage(folder: Path, name: str, *arguments: str) -> None:
    """Run a stage there, in a process of its own; what it refuses, it has said."""
    how = "fork" if sys.platform == "linux" else "spawn"  # elsewhere, libraries do not stand being forked
    process = multiprocessing.get_context(how).Process(target=as_main, args=(folder, name, arguments))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def as_main(folder: Path, name: str, arguments: Sequence[str]) -> None:
    """What `python -m stages.NAME` does there."""
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(ROOT)  # for the further processes that a stage may start
    sys.argv[1:] = arguments
    runpy.run_module(f"stages.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run(main)
