"""SIGKILL at many moments of every stage: the same command again continues, and ends with an unbroken run's bytes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.lib.base.files import SUMS, damage
from stages.lib.train.checkpoints import by_step
from tests.conftest import ROOT, TINY, write_params
from tests.faults.conftest import Ended, Stages

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MOMENTS = 10  # of each kind: before file events spread over all, and after times spread over the unbroken run's
QUICK = 24  # before file events only: prepare is over before a timer is set
COUNT_ONLY = 10**9
SMALL = {**TINY, "data__train_rows": 16, "data__test_rows": 24, "lora__dropout": 0.1}
ORDER = [
    ("prepare",),
    ("finetune",),
    ("gen_math", "base"),
    ("gen_math", "tuned"),
    ("gen_safety", "base"),
    ("gen_safety", "tuned"),
    ("judge", "base"),
    ("judge", "tuned"),
    ("report",),
]
KILLED = [stage for stage in ORDER if stage[-1] != "base"]
ROWS = ("train", "test", "shots", "hazards", "benign", "replay", "skills", "risks")
PREPARED = [f"data/prepared/{name}" for name in ROWS]
OUTPUTS = {
    "prepare": [*(f"{name}.jsonl" for name in PREPARED), "data/prepared/SHA256SUMS", "data/costs/prepare.json"],
    "finetune": ["models/tuned", "metrics/loss.csv", "data/costs/finetune.json"],
    **{
        stage: [
            *(f"data/generated/tuned/{rows}{end}" for end in (".jsonl", ".made.json")),
            f"data/costs/{stage}-tuned.json",
        ]
        for stage, rows in (("gen_math", "math"), ("gen_safety", "safety"), ("judge", "verdicts"))
    },
    "report": ["metrics", "report"],
}
COSTS = ("cost.json", "report.md", "report.html")


@dataclass(frozen=True)
class Whole:
    """An unbroken run: its folder, and how each stage went."""

    folder: Path
    ended: dict[str, Ended]


def unbroken(stages: Stages, tiny: Path, folder: Path) -> Whole:
    """Every stage in turn, in a folder that holds what they need."""
    for name in ("data/embedded", "data/annotations", "models/base"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "runs.yaml", folder)
    shutil.copytree(tiny, folder / "tiny")
    write_params(folder, **SMALL)
    ended = {}
    for stage, *arguments in ORDER:
        if stage == "report":  # it would clear what the stages before it kept
            shutil.rmtree(folder / ".ckpt")
        ended[stage] = stages.run(folder, stage, *arguments, before_event=COUNT_ONLY)
        assert ended[stage].code == 0, ended[stage].stderr
    return Whole(folder, ended)


def content(folder: Path, stage: str) -> dict[str, bytes]:
    """The bytes of a stage's outputs, but for what it cost."""
    found = {}
    for name in OUTPUTS[stage]:
        path = folder / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= {str(f.relative_to(folder)): f.read_bytes() for f in files if f.is_file() and f.name not in COSTS}
    return {name: data for name, data in found.items() if not name.startswith("data/costs")}


def as_dvc_would(folder: Path, stage: str) -> None:
    """DVC deletes a stage's outputs before it starts the stage."""
    for name in OUTPUTS[stage]:
        path = folder / name
        if stage == "report":
            for file in path.rglob("*"):
                if file.is_file() and file.name != "loss.csv":
                    file.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def unfinished_parts(folder: Path) -> dict[Path, int]:
    """The finished batches and whole checkpoints that a killed stage left, and when each was written."""
    parts = [path for path in (folder / ".ckpt").rglob("*.json") if "checkpoint-" not in str(path)]
    sums = [path for path in (folder / ".ckpt").rglob(SUMS) if damage(path.parent) is None]
    return {path: path.stat().st_mtime_ns for path in [*parts, *sums]}


@pytest.mark.parametrize(
    ("stage", "kind", "moments"),
    [
        (KILLED[0], "file event", QUICK),
        *((stage, kind, MOMENTS) for stage in KILLED[1:] for kind in ("file event", "time")),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_killed_and_run_again(stages, whole, tmp_path, stage, kind, moments, record_property):
    name, *arguments = stage
    wanted = content(whole.folder, name)
    reference = whole.ended[name]
    survived, reused = [], 0
    for moment in range(moments):
        folder = tmp_path / f"{moment}"
        shutil.copytree(whole.folder, folder)
        as_dvc_would(folder, name)
        share = (moment + 0.5) / moments
        if kind == "time":
            killed = stages.run(folder, name, *arguments, after_seconds=share * reference.seconds)
        else:
            killed = stages.run(folder, name, *arguments, before_event=round(share * reference.events))
        while kind == "time" and killed.code == 0:  # it was faster than the unbroken run
            share *= 0.8
            as_dvc_would(folder, name)
            shutil.rmtree(folder / ".ckpt", ignore_errors=True)
            killed = stages.run(folder, name, *arguments, after_seconds=share * reference.seconds)
        assert killed.code == -9, killed.stderr
        parts = unfinished_parts(folder)
        latest = [path.name for path in by_step(checkpoints(folder)) if damage(path) is None] if parts else []

        as_dvc_would(folder, name)
        again = stages.run(folder, name, *arguments)
        assert again.code == 0, again.stderr
        assert content(folder, name) == wanted, f"other bytes after a kill at {share:.0%}"
        assert not list(folder.rglob("*.part")), "half-written files are left"
        if name == "finetune" and latest:
            assert f"/{latest[0]}\n" in again.stderr
        for path, written in parts.items():
            if path.name != SUMS:
                assert path.stat().st_mtime_ns == written, f"{path.name} was done a second time"
                reused += 1
        survived.append(f"{share:.0%}")
        shutil.rmtree(folder)
    record_property("tried", f"{name}: killed by {kind}, {len(survived)} moments: at {', '.join(survived)} of the run")
    record_property("kills", len(survived))
    record_property("outcome", f"same bytes each time; {reused} finished batches taken over, none done twice")


def checkpoints(folder: Path) -> Path:
    return next(iter(path for path in (folder / ".ckpt/finetune").glob("*") if path.is_dir()), folder / "none")


@pytest.mark.parametrize("stage", KILLED[1:5], ids=lambda stage: stage[0])
def test_killed_again_and_again_it_still_comes_to_an_end(stages, whole, tmp_path, stage, record_property):
    name, *arguments = stage
    folder = tmp_path / "chain"
    shutil.copytree(whole.folder, folder)
    events, kills = whole.ended[name].events // 4, 0
    while True:
        as_dvc_would(folder, name)
        done = unfinished_parts(folder)
        ended = stages.run(folder, name, *arguments, before_event=events)
        if ended.code == 0:
            break
        assert ended.code == -9, ended.stderr
        kills += 1
        if unfinished_parts(folder) == done:  # too few events to start and get a little further, or to end
            events += events // 10
        assert events < whole.ended[name].events, "it does not get further"
    assert content(folder, name) == content(whole.folder, name)
    assert kills > 2
    record_property("tried", f"{name}: killed again and again, {kills} times before it ended")
    record_property("kills", kills)
    record_property("outcome", "each start went on where the one before was killed; same bytes")
