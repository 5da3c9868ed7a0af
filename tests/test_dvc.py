"""dvc.yaml and the code agree: each stage lists the rooms it imports from and the params its main() reads, and no more;
and the rooms import only downwards."""

import ast
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.lib.base.params import Params
from tests.conftest import ROOT

FILE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage.get("do", stage) for name, stage in FILE["stages"].items()}
NAMES = ("prepare", "finetune", "gen_math", "gen_safety", "judge", "report")
LIB = Path("stages/lib")
MAY_IMPORT = {  # a room and those below it
    "base": (),
    "fetch": ("base",),
    "prompts": ("base",),
    "data": ("base", "fetch", "prompts"),
    "model": ("base", "fetch", "prompts"),
    "generate": ("base", "prompts", "model"),
    "train": ("base", "prompts", "model", "generate"),
    "judge": ("base", "prompts", "model", "generate"),
    "measure": ("base", "prompts", "judge"),
    "report": ("base", "prompts", "measure"),
}
TOOLS_MAY_IMPORT = {  # besides the rooms and tools.commands
    "review": ("drift",),
    "runs": (),
    "embedded": (),
    "annotate": (),
    "commands": (),
    "drift": (),
    "export": ("drift",),
    "fetch": (),
    "findings": ("review", "runs"),
    "measure": (),
    "mitigations": (),
    "panel": (),
    "serve": (),
    "simulate": (),
    "strength": ("runs",),
}


def imports(path: Path, package: str = "stages") -> set[Path]:
    """Local modules that a file imports anywhere in it, as paths from the root."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package:
            whole = Path(*node.module.split("."))
            found |= {name.with_suffix(".py") for name in [whole, *(whole / alias.name for alias in node.names)]}
    return {name for name in found if (ROOT / name).is_file()}


def reached(path: Path) -> set[Path]:
    """A file and all local modules it imports, directly or through others."""
    seen, waiting = set(), [path]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting.extend(imports(name))
    return seen


def room(path: Path) -> str | None:
    """The room of stages/lib that a file is in."""
    return path.relative_to(LIB).parts[0] if path.is_relative_to(LIB) else None


def sections(path: Path) -> set[str]:
    """Sections of params that a stage reads: attributes of `params`, or of `load_params()`, anywhere in the file."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value
            if isinstance(owner, ast.Call):
                owner = owner.func
            if isinstance(owner, ast.Name) and owner.id in ("params", "load_params"):
                found.add(node.attr)
    return found & set(Params.model_fields) - {"machine"}  # where a stage runs decides no result


def test_there_are_six_stages():
    assert tuple(STAGES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_lists_every_room_it_imports_from(name):
    stage = Path(f"stages/{name}.py")
    listed = {Path(dep) for dep in STAGES[name]["deps"] if dep.startswith("stages/")}
    assert listed == {stage} | {LIB / used for used in map(room, reached(stage)) if used}


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_lists_the_params_it_reads(name):
    read = sections(Path(f"stages/{name}.py"))
    if name == "report":  # prints all of them, to say which of the ten runs this is
        read = set(Params.model_fields) - {"review", "machine"}  # the rules of a merge measure nothing
    listed = STAGES[name]["params"]
    if "${item.param}" in listed:
        subjects = FILE["vars"][0]["subjects"].values()
        listed = [*(param for param in listed if param != "${item.param}"), *(each["param"] for each in subjects)]
    assert {param.partition(".")[0] for param in listed} == read


def test_every_room_says_what_it_is_for_and_imports_only_from_those_below():
    rooms = {path.name for path in (ROOT / LIB).iterdir() if path.name != "__pycache__" and path.is_dir()}
    assert rooms == set(MAY_IMPORT)
    below = list(MAY_IMPORT)
    for name, allowed in MAY_IMPORT.items():
        assert set(allowed) <= set(below[: below.index(name)]), f"{name}: no arrow up, no circle"
        used = set()
        for path in (ROOT / LIB / name).rglob("*.py"):
            found = imports(path.relative_to(ROOT))
            assert not found & {Path(f"stages/{stage}.py") for stage in NAMES}, f"{path} imports a stage"
            assert not imports(path.relative_to(ROOT), "tools"), f"{path} imports a tool"
            used |= {room(each) for each in found}
        assert used - {name} == set(allowed)
        assert ast.get_docstring(ast.parse((ROOT / LIB / name / "__init__.py").read_text()))


def test_stages_import_no_stage_and_no_tool():
    for name in NAMES:
        path = Path(f"stages/{name}.py")
        assert all(room(each) for each in imports(path)) and not imports(path, "tools"), path


def test_stages_that_load_a_model_begin_alike():
    """What can be refused is refused before anything is loaded: opening.py has the order, no stage one of its own."""
    for name in ("finetune", "gen_math", "gen_safety", "judge"):
        path = Path(f"stages/{name}.py")
        assert LIB / "model/opening.py" in imports(path)
        called = {node.id for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Name)}
        assert "begin" in called
        assert not called & {"check_present", "check_inputs", "read_jsonl", "spread", "unfinished"}


def test_tools_import_each_other_only_where_the_table_says():
    used = {name: set() for name in TOOLS_MAY_IMPORT}
    for path in (ROOT / "tools").rglob("*.py"):
        inside = path.relative_to(ROOT / "tools")
        if inside.parts == ("__init__.py",):
            continue
        name = inside.parts[0].removesuffix(".py")
        found = {each.parts[1].removesuffix(".py") for each in imports(path.relative_to(ROOT), "tools")}
        used[name] |= found - {name, "commands"}
        assert not imports(path.relative_to(ROOT)) & {Path(f"stages/{stage}.py") for stage in NAMES}, path
    assert used == {name: set(allowed) for name, allowed in TOOLS_MAY_IMPORT.items()}


PURE = ("prompts/chat", "prompts/gsm8k", "judge/guards", "base/params", "base/rows", "data/sources")
MEASURE = (
    "stats",
    "metrics",
    "written",
    "groups",
    "power",
    "decide",
    "bounds",
    "form",
    "seeds",
    "judged",
    "reader",
    "trainings",
    "ways",
)


@pytest.mark.parametrize("name", [*PURE, *(f"measure/{name}" for name in MEASURE)])
def test_pure_modules_load_no_model_library(name):
    heavy = {"torch", "transformers", "peft", "datasets"}
    for path in reached(LIB / f"{name}.py"):
        for node in ast.parse((ROOT / path).read_text()).body:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not heavy & {module.split(".")[0] for module in modules}, path


def test_git_ignores_no_code():
    """A rule for what a tool writes (`review/`) once hid a package of the same name: it was here and in no clone."""
    ask = ("git", "ls-files", "--others", "--ignored", "--exclude-standard", "--", "stages", "tools", "bench", "tests")
    ignored = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in ignored if name.endswith(".py")]
    folders = {path.parent for top in ("stages", "tools", "tests") for path in (ROOT / top).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]
