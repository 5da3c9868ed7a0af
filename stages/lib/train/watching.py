"""What watches a training: a bar that a person can see, and a stop for one that has broken down."""

import math
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from stages.lib.base.errors import BadInput
from stages.lib.base.processes import is_first
from stages.lib.train.checkpoints import by_step

EXPLODED = 10  # times the first loss (or 1 nat, if that is more) is no training any more


class Progress(TrainerCallback):
    """A bar with rate, time left and the last loss; nothing when stderr is not a terminal."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        done, quiet = state.global_step, not (sys.stderr.isatty() and is_first())
        self.bar = tqdm(total=state.max_steps, initial=done, desc="finetune", unit="step", disable=quiet)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class Divergence(TrainerCallback):
    """Stops a training that has broken down, before its weights are saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss, gradient = logs["loss"], float(logs.get("grad_norm", 0.0))
        first = next(log["loss"] for log in state.log_history if "loss" in log)
        if math.isfinite(loss) and math.isfinite(gradient) and loss <= EXPLODED * max(first, 1.0):
            return
        good = next(iter(by_step(Path(args.output_dir))), None)
        raise BadInput(
            f"finetune: training broke down at update {state.global_step} of {state.max_steps}: loss {loss:.4g} (first "
            f"{first:.4g}), gradient norm {gradient:.4g}. "
            f"The last good checkpoint is {good or 'none, it broke too soon'}. Try a lower finetune.learning_rate, "
            "a higher finetune.warmup_ratio, or model.dtype float32"
        )
