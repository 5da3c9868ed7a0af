"""dvc.yaml and the code agree: each stage lists the modules it imports and the params its main() reads, and no more."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.lib.params import Params
from tests.conftest import ROOT

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
NAMES = ("prepare", "finetune", "gen_math", "gen_safety", "judge", "report")


def imports(path: Path) -> set[str]:
    """Local modules that a file imports anywhere in it, as paths from the root."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stages"):
            whole = node.module.replace(".", "/")
            for name in [whole, *(f"{whole}/{alias.name}" for alias in node.names)]:
                if (ROOT / f"{name}.py").is_file():
                    found.add(f"{name}.py")
    return found


def reached(path: str) -> set[str]:
    """A file and all local modules it imports, directly or through others."""
    seen, waiting = set(), [path]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting.extend(imports(Path(name)))
    return seen


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
def test_a_stage_lists_every_local_module_it_imports(name):
    listed = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert listed == reached(f"stages/{name}.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_lists_the_params_it_reads(name):
    read = sections(Path(f"stages/{name}.py"))
    if name == "report":  # prints all of them, to say which of the ten runs this is
        read = set(Params.model_fields) - {"review", "machine"}  # the rules of a merge measure nothing
    assert set(STAGES[name]["params"]) == read


def test_nobody_imports_a_stage_and_lib_imports_no_tool():
    for path in (ROOT / "stages").rglob("*.py"):
        names = imports(path.relative_to(ROOT))
        assert not names & {f"stages/{name}.py" for name in NAMES}, path


@pytest.mark.parametrize("name", ["chat", "gsm8k", "guards", "stats", "params", "records", "sources", "metrics"])
def test_pure_modules_load_no_model_library(name):
    heavy = {"torch", "transformers", "peft", "datasets"}
    for path in reached(f"stages/lib/{name}.py"):
        for node in ast.parse((ROOT / path).read_text()).body:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not heavy & {module.split(".")[0] for module in modules}, path
