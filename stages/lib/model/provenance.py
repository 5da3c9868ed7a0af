"""How a model's answers are made, as a value that goes with them (base/made.py): which files, by what, on what."""

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.lib.base.files import files_in, read_text, sha256_file, sha256_text
from stages.lib.base.made import LIBRARIES, Made
from stages.lib.base.model_files import FILES
from stages.lib.base.model_names import is_folder
from stages.lib.fetch.hub import MODEL_FILES, model_folder
from stages.lib.model.device import computed_in, kind
from stages.lib.model.embedded import SETTINGS, adapter_folder

WEIGHTS = ("*.safetensors", "*.json")  # of a tuned model; its card and hashes decide no answer


def how_made(
    *,
    name: str,
    revision: str | None,
    quantization: str,
    dtype: str,
    tokenizer: Any,
    rendered: str,
    engine: str,
    put_on: Path | None = None,
) -> Made:
    """How the model of this name answers here; `rendered`: a fixed conversation; `put_on`: the folder of its tuning."""
    return Made(
        model=name,
        revision=revision,
        content=content(name, revision),
        tuning=tuning(put_on) if put_on else None,
        template=sha256_text(tokenizer.get_chat_template()),
        rendering=sha256_text(rendered),
        quantization=quantization,
        dtype=computed_in(dtype),
        engine=engine,
        libraries={library: version(library) for library in LIBRARIES},
        device=kind(),
    )


def content(name: str, revision: str | None) -> str:
    """sha256 over a model's files: a published file's own, else over the name and sha256 of each file."""
    if name in FILES:
        return FILES[name].sha256
    if name.startswith("embedded/"):
        adapter = adapter_folder(name)
        base = json.loads(read_text(adapter / SETTINGS))["base_model_name_or_path"]
        return _over(adapter, files_in(adapter), content(base, None))
    if is_folder(name):
        return _over(Path(name), files_in(Path(name)))
    folder = model_folder(name, revision)
    return _over(folder, {file for pattern in MODEL_FILES for file in folder.glob(pattern)}, revision)


def tuning(folder: Path) -> str | None:
    """sha256 over an adapter, or over all weights after full-parameter tuning; None for the untuned model."""
    files = {file for pattern in WEIGHTS for file in folder.glob(pattern)}
    return _over(folder, files) if files else None


def _over(folder: Path, files: Sequence[Path] | set[Path], *more: str | None) -> str:
    digests = {str(file.relative_to(folder)): _sha256(file) for file in sorted(files)}
    return sha256_text(json.dumps([digests, *more]))


def _sha256(file: Path) -> str:
    """A file's sha256. The hub's cache names large files by it, so that they need not be read."""
    target = file.readlink().name if file.is_symlink() else ""
    return target if re.fullmatch("[0-9a-f]{64}", target) else sha256_file(file)
