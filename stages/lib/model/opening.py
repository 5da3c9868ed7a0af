"""How a stage that loads a model begins: what can be refused is refused before anything heavy is imported or loaded.

task = Task("gen_math-base", {...}, {path: Problem, ...}, model=params.model.name)
questions, shots = begin(task, params.machine.processes)
from stages.lib.generate.subjects import ...     the libraries, in each of the stage's processes
with work_on(task) as keep: ...
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.lib.base.files import read_text
from stages.lib.base.processes import spread
from stages.lib.base.restored import check_inputs
from stages.lib.base.rows import Row, read_if_any, read_jsonl
from stages.lib.base.serving import address
from stages.lib.base.unfinished import unfinished
from stages.lib.model.sources import check_present, own_files


@dataclass(frozen=True)
class Task:
    """All that decides a stage's result: the sections of params that it reads, its files with the kind of row in them,
    the model that it loads (None: none, by the refusal rule alone), and folders that it reads whole. `own`: the file of
    a reader's own sets, which may hold nothing."""

    name: str
    params: Mapping[str, BaseModel]
    files: Mapping[Path, type[Row]]
    model: str | None
    folders: Sequence[Path] = ()
    own: Mapping[Path, type[Row]] = field(default_factory=dict)
    server: str | None = None  # whose server answers in place of the model's files here: base, tuned or judge
    lasting: bool = False  # whether what is kept of it serves other runs as well


def begin(task: Task, processes: int) -> list[list[Any]]:
    """The rows of the task's files, in their order, then of `own`; from here on, this is one of the stage's processes.

    Raises BadInput where no model of that name or no server is at hand, and for files that are damaged or hold a bad
    row. Without a model, or with a server's, there is nothing to share: the stage stays one process.
    """
    if task.model:
        check_present(task.model)
        if task.server:
            address(task.server)
    check_inputs(*task.files, *task.own)
    rows = [read_jsonl(path, kind) for path, kind in task.files.items()]
    rows += [read_if_any(path, kind) for path, kind in task.own.items()]
    if task.model:
        spread(1 if task.server else processes)
    return rows


def work_on(task: Task) -> AbstractContextManager[Path | None]:
    """The folder that keeps the task's finished parts (unfinished.py); None without a model: it has nothing to lose."""
    if not task.model:
        return nullcontext()
    own = [path for path in task.own if read_text(path).strip()]
    files = [*task.files, *own, *task.folders, *own_files(task.model)]
    return unfinished(task.name, task.params, files, task.lasting)
