"""Checkpoints of a training run, written often enough to lose little and seldom enough to cost little.

A checkpoint is Trainer's own (weights, optimizer, schedule, random state, log), so that training goes on with the bits
of an unbroken run (a test holds it). It counts once its SHA256SUMS is there, which is written last. The two latest are
kept: should the last one be damaged, the one before it serves. Torch reads its .pt files as plain tensors only.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from stages.lib.base.files import damage, write_sums
from stages.lib.base.processes import from_first, is_first, wait

SHARE = 0.05  # of the time, at most, goes to writing checkpoints
LATEST = 2


class Checkpoints(TrainerCallback):
    """After the first update, after the last, and between them whenever SHARE allows it by what the last one took."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.due = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.monotonic()
        control.should_save = from_first(self.start >= self.due) or state.global_step == state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir)
        wait()  # each process has written its random state
        if is_first():
            write_sums(folder / f"checkpoint-{state.global_step}")
            for old in by_step(folder)[LATEST:]:
                shutil.rmtree(old)
        now = time.monotonic()
        self.due = now + (now - self.start) / SHARE


def by_step(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, the latest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))


def last_good(folder: Path) -> Path | None:
    """The latest whole checkpoint in a folder, the same for all processes. Damaged ones are removed, with a word."""
    return from_first(_last_good(folder) if is_first() else None)


def _last_good(folder: Path) -> Path | None:
    for checkpoint in by_step(folder):
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint
        print(f"finetune: {wrong}; this checkpoint is not used", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return None
