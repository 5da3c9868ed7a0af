"""lm-evaluation-harness on this project's models: found or refused, its tasks, and one model's results."""

import gc
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.measured import weights
from stages.lib.base.sections import Model

NAMED = 5  # of the harness's tasks, in a message


@dataclass(frozen=True)
class Tasks:
    """Names of tasks, and the harness's own index in which they were found."""

    names: Sequence[str]
    index: Any


@dataclass(frozen=True)
class Found:
    """One model's `results`, as the harness gives them, and how they were `made` (base/made.py)."""

    results: Mapping[str, Any]
    made: Mapping[str, Any]


def find(names: Sequence[str], include_path: Path | None = None) -> Tasks:
    """The tasks of these names, their data at hand. Raises BadInput where the harness is not installed, has no such
    task, or cannot have its data."""
    if importlib.util.find_spec("lm_eval") is None:
        raise BadInput(
            "lm_eval is not installed; `make panel TASKS=...` installs it, as does "
            "`pip install -c requirements.lock -r tools/panel/requirements.txt`"
        )
    if include_path and not include_path.is_dir():
        raise BadInput(f"--include-path: found {include_path}, which is no folder")

    from stages.lib.model.device import quiet

    quiet()
    logging.disable(logging.WARNING)
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=include_path and str(include_path))
    for name in names:
        if name not in index.all_tasks:
            like = [other for other in index.all_tasks if name.partition("_")[0] in other][:NAMED]
            hint = f"; there are {', '.join(like)}, ..." if like else "; `lm_eval ls tasks` lists them"
            raise BadInput(f"the harness has no task {name!r}{hint}")
    try:
        index.load(list(names))
    except Exception as error:  # whatever a task's data or code make the harness raise
        raise BadInput(f"{', '.join(names)}: the harness cannot load it: {_first_line(error)}") from error
    return Tasks(names, index)


def measure(
    subject: str, model: Model, asked_as: Model, strength: float, tasks: Tasks, settings: Mapping[str, Any]
) -> Found:
    """A subject's results. `asked_as`: the model whose tokens the subject must have, too."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from stages.lib.generate.subjects import subject_made
    from stages.lib.model.models import load_subject
    from stages.lib.model.tokens import check_same_tokens

    check_same_tokens(model, asked_as)
    folder = weights(subject)
    loaded, tokenizer = load_subject(model, folder, subject == "tuned", strength)
    loaded.tie_weights = lambda *_, **__: None  # they are, and may be laid out for the kernels by now
    rest = {name: value for name, value in settings.items() if name != "batch_size"}
    try:
        results = simple_evaluate(
            HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=settings["batch_size"]),
            tasks=list(tasks.names),
            task_manager=tasks.index,
            apply_chat_template=True,
            log_samples=True,
            **rest,
        )
    except (ValueError, RuntimeError, KeyError, TypeError, AssertionError) as error:
        raise BadInput(f"{', '.join(tasks.names)}, {subject}: the harness stopped: {_first_line(error)}") from error
    made = subject_made(model, folder, tokenizer).model_copy(update={"engine": f"lm_eval {version('lm_eval')}"})
    del loaded
    gc.collect()  # before the next model is loaded beside it
    return Found(results, made.values())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:300]}"
