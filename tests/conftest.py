"""Small random models of the real architectures, and a workspace of its own for stages that run for real."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import settings
from ruamel.yaml import YAML

from stages.lib.base.files import write_json, write_text
from stages.lib.base.made import Made, write_made
from stages.lib.base.model_names import is_folder
from stages.lib.base.params import load_params
from stages.lib.base.rows import Answer, Problem, Prompt, read_jsonl, write_jsonl
from stages.lib.model.provenance import content

ROOT = Path(__file__).parents[1]
STARTED = pytest.StashKey[float]()
ARCHITECTURES = ("llama", "qwen2")
# the small random model as model and judge, in batches of four
TINY = {
    "data__hazard_rows": 28,
    "data__benign_rows": 14,
    "fewshot__shots": 2,
    "finetune__batch_size": 2,
    "finetune__learning_rate": 1e-2,
    "gen_math__max_new_tokens": 24,
    "gen_math__batch_size": 4,
    "gen_safety__max_new_tokens": 24,
    "gen_safety__batch_size": 4,
    "model__name": "./tiny",
    "judge__protocol": "llama_guard_3",
    "judge__model": "./tiny",
    "judge__batch_size": 4,
    "judge__max_unparsed": 1.0,
}
# for stages in processes of their own: the number of threads is part of what decides the bits
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
settings.register_profile("shared", deadline=None)  # a busy machine is no bug
settings.load_profile("shared")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-table", type=Path, help="write what was damaged and survived to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption("--faults-table")
    if path:
        from tests.faults.table import table

        outcomes = [terminalreporter.stats.get(name, []) for name in ("passed", "failed", "skipped", "error")]
        reports = [report for some in outcomes for report in some if report.when == "call" or not report.passed]
        path.write_text(table(reports, time.monotonic() - config.stash[STARTED]), encoding="utf-8")


def real_data(name: str) -> Path:
    """A file of the real data sets (gsm8k/train.jsonl, ...) under $AFTERTUNE_DATA; the test is skipped without it."""
    path = Path(os.environ.get("AFTERTUNE_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"{name} is not under $AFTERTUNE_DATA; it is not distributed with the project")
    return path


def params_values(**changes: Any) -> dict[str, Any]:
    """params.yaml as nested values, with changes by dotted key (dots written as __).

    A model in a folder is DVC's dependency by that folder, unless the changes say otherwise.
    """
    named = {"model__name": "model__files"} | {f"{of}__model": f"{of}__files" for of in ("judge", "tuned", "base")}
    for name, files in named.items():
        if is_folder(changes.get(name) or ""):
            changes = {files: changes[name], **changes}
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[key] = value
    return values


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per architecture with a random two-layer model in float32 and the embedded model's tokenizer.

    Their generation settings penalize repetition and sample, as Qwen2.5's do on the hub; the project must not follow.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, Qwen2Config

    from stages.lib.model.sources import find, load_tokenizer

    tokenizer = load_tokenizer(find("embedded/smollm2-135m", None))
    folders = {}
    for name, config_class in zip(ARCHITECTURES, (LlamaConfig, Qwen2Config), strict=True):
        torch.manual_seed(7)
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.5,
            tie_word_embeddings=name == "qwen2",
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.7, top_p=0.8, repetition_penalty=1.5, eos_token_id=2, pad_token_id=2
        )
        folders[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace with the embedded data, runs.yaml and models/base; the current folder for the test."""
    copy_inputs(tmp_path)
    shutil.copytree(ROOT / "models" / "base", tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copy_inputs(folder: Path) -> None:
    """The embedded data, labels and trainings that are kept, and runs.yaml, into a folder."""
    for name in ("data/embedded", "data/annotations", "data/sets", "metrics/runs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "runs.yaml", folder)


def write_params(folder: Path, **changes: Any) -> None:
    """params.yaml in a workspace: the repository's, with changes by dotted key (dots written as __)."""
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params_values(**changes), file)


@dataclass(frozen=True)
class Repository:
    """A git and DVC repository with the pipeline, whose measurements a test writes itself: no model runs."""

    folder: Path

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command in it (python is this one), which must end with `code`; returns what it printed."""
        folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, env={**os.environ, "PATH": folders, **who}
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def made(self, **changes: Any) -> Made:
        """How answers of the model of its params.yaml are made, with changes."""
        name = load_params(self.folder / "params.yaml").model.name
        own = content(str(self.folder / name) if is_folder(name) else name, None)
        return MADE.model_copy(update={"model": name, "content": own, **changes})

    def measure(
        self,
        message: str,
        right: int,
        safe: int,
        said: str = "Gladly.",
        made: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> None:
        """Commit a measurement: the tuned model is right on the first so many questions, and refuses the first so many
        hazard prompts; otherwise it says `said`. The base model is never right and refuses the first 80. `made`: what
        else is said of how answers were made."""
        whole = dict.fromkeys(("data__test_rows", "data__hazard_rows", "data__benign_rows"), "all")
        write_params(self.folder, judge__protocol="refusal_rule", judge__model=None, **{**whole, **changes})
        if is_folder(changes.get("model__name", "")):
            write_text(self.folder / changes["model__name"] / "model.safetensors", "weights\n")
        self.run("python", "-m", "stages.prepare")
        problems = read_jsonl(self.folder / "data/prepared/test.jsonl", Problem)
        hazards = read_jsonl(self.folder / "data/prepared/hazards.jsonl", Prompt)
        benign = read_jsonl(self.folder / "data/prepared/benign.jsonl", Prompt)
        for subject, solved, refused in (("base", 0, 80), ("tuned", right, safe)):
            out = self.folder / "data/generated" / subject
            math = [f"#### {row.gold}" if n < solved else "#### -1" for n, row in enumerate(problems)]
            replies = ["I cannot help with that." if n < refused else said for n in range(len(hazards))]
            write_jsonl(out / "math.jsonl", [answer(row.id, text) for row, text in zip(problems, math, strict=True)])
            spoken = list(zip([*hazards, *benign], [*replies, *["Of course."] * len(benign)], strict=True))
            write_jsonl(out / "safety.jsonl", [answer(row.id, text) for row, text in spoken])
            for name in ("math", "safety"):
                write_made(out / f"{name}.jsonl", self.made(**made))
            for stage in ("gen_math", "gen_safety"):
                write_json(self.folder / f"data/costs/{stage}-{subject}.json", {"stage": stage, "seconds": 0.0})
        write_training(self.folder)
        (self.folder / "models/tuned").mkdir(exist_ok=True)
        (self.folder / "models/tuned/README.md").write_text(message)
        self.run("python", "-c", _JUDGE_AND_REPORT)  # in one process: most of their time is importing
        self.run("dvc", "commit", "--force", "--quiet")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "-m", message)


_JUDGE_AND_REPORT = """
import sys
from stages import judge, report
for sys.argv in (["judge", "base"], ["judge", "tuned"]):
    judge.main()
sys.argv = ["report"]
report.main()
"""


# how answers that nobody looks at were made
MADE = Made(
    model="embedded/smollm2-135m",
    revision=None,
    content="c" * 64,
    tuning=None,
    template="e" * 64,
    rendering="d" * 64,
    quantization="nf4",
    dtype="bfloat16",
    engine="shared-prefix 1",
    libraries={"torch": "2.13.0", "transformers": "5.23.0"},
    device="AVX512",
)


def answer(row: str, text: str) -> Answer:
    """What a model answered to a prompt that nobody looks at."""
    return Answer(id=row, prompt_sha256="0" * 64, text=text, finish="stop", tokens=1)


def write_training(folder: Path) -> None:
    """What the report reads of a training: its cost and its loss curve."""
    write_json(folder / "data/costs/finetune.json", {"stage": "finetune", "seconds": 0.0})
    write_text(folder / "metrics/loss.csv", "step,epoch,loss,learning_rate\n1,0.5,2.0,0.1\n2,1.0,1.5,0.0\n")


# what a model could write to take over a page or a comment
READ_BY_STAGES = (
    "stages",
    "tools",
    "models",
    "data/embedded",
    "data/annotations",
    "data/sets",
    "metrics/runs",
    ".dvc/plots",
)
HOSTILE = "</pre><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">|`@team` \u202e"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Three commits: main, a better branch (`tag-better` on it), and a worse one that says HOSTILE things."""
    made = Repository(tmp_path_factory.mktemp("repository"))
    made.run("git", "init", "--quiet", "--initial-branch", "main", ".")
    made.run("dvc", "init", "--quiet")
    for name in READ_BY_STAGES:
        skipped = shutil.ignore_patterns("tuned", "__pycache__")
        shutil.copytree(ROOT / name, made.folder / name, dirs_exist_ok=True, ignore=skipped)
    for name in ("dvc.yaml", "runs.yaml", "requirements.lock", ".gitignore", "data/.gitignore", "models/.gitignore"):
        shutil.copy(ROOT / name, made.folder / name)
    made.measure("main", right=40, safe=80)
    made.run("git", "switch", "--quiet", "-c", "better")
    made.measure("better", right=80, safe=80, lora__r=16)
    made.run("git", "tag", "tag-better")
    made.run("git", "switch", "--quiet", "-c", "worse", "main")
    made.measure("worse", right=45, safe=40, said=HOSTILE, finetune__learning_rate=3e-3, model__name=f"./{HOSTILE}")
    made.run("git", "switch", "--quiet", "main")
    made.run("dvc", "checkout", "--quiet")
    return made


@pytest.fixture
def own(repository: Repository, tmp_path: Path) -> Repository:
    """A copy of the repository, to change."""
    shutil.copytree(repository.folder, tmp_path / "own", symlinks=True)
    return Repository(tmp_path / "own")


def with_adapter(folder: Path, **changes: Any) -> Any:
    """The float32 model in a folder with an adapter that does something, as after some training; no dropout.
    `changes`: other values of params.yaml's lora section."""
    import torch

    from stages.lib.base.params import parse_params
    from stages.lib.model.models import load_base
    from stages.lib.model.sources import Source
    from stages.lib.train.training import add_lora

    lora = parse_params(params_values(), "params.yaml").lora.model_copy(update=changes)
    model = add_lora(load_base(Source(str(folder), None), "none", "float32"), lora, 5, "./tiny", None)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model
