"""Where a model's files are (hub, folder or embedded), whether they may be loaded, and its tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from stages.lib.base.model_files import FILES
from stages.lib.base.model_names import is_folder
from stages.lib.fetch.hub import model_folder
from stages.lib.model.device import quiet
from stages.lib.model.embedded import TEMPLATE, adapter_folder, base_name, check_adapter, embedded_folder
from stages.lib.prompts.chat import check_template


@dataclass(frozen=True)
class Source:
    """Where a model's files come from: a local folder, or a hub name with a pinned revision; and the adapter that it is
    used with, as a model of this repository is."""

    path: str
    revision: str | None
    adapter: Path | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of every from_pretrained call; False refuses code that comes with a model (None would ask)."""
        where = {"revision": self.revision} if self.revision else {"local_files_only": True}
        return {**where, "trust_remote_code": False}


def check_present(name: str) -> None:
    """Refuse, without loading anything, a folder that holds no model or an embedded model without its adapter."""
    if is_folder(name):
        check_folder(name)
    elif name.startswith("embedded/"):
        check_adapter(name)


def check_folder(name: str | Path) -> None:
    """Refuse a folder, named so in the message, that holds no model of its own (BadInput)."""
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise BadInput(f"{name}: no config.json there; expected a folder with a transformers model")
    if not list(folder.glob("*.safetensors")):
        raise BadInput(f"{name}: no *.safetensors there; other weight formats (pickles) are not loaded")
    _check_own_weights(folder)


def own_files(name: str) -> list[Path]:
    """The files and folders outside the code that say which model a name is; a hub model's revision says it."""
    if is_folder(name):
        return [Path(name)]
    return [adapter_folder(name)] if name.startswith("embedded/") and name not in FILES else []


def find(name: str, revision: str | None) -> Source:
    """The files of a model named as in params.yaml; unpacks an embedded one, or downloads a hub's, on first use."""
    check_present(name)
    quiet()
    if name in FILES:
        return Source(str(embedded_folder(name)), None)
    if name.startswith("embedded/"):
        adapter = adapter_folder(name)
        return Source(str(embedded_folder(base_name(adapter))), None, adapter)
    if is_folder(name):
        return Source(name, None)
    folder = model_folder(name, revision)
    _check_own_weights(folder)
    return Source(str(folder), None)


def _check_own_weights(folder: Path) -> None:
    """Refuse a folder that would send transformers to other weights than its own (BadInput)."""
    if (folder / "adapter_config.json").is_file():
        raise BadInput(
            f"{folder}: adapter_config.json there names weights elsewhere; expected a model by itself, merged"
        )


def load_tokenizer(source: Source) -> Any:
    """The tokenizer, padding on the left for generation. Raises BadInput if it cannot be loaded or has no template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.options())
    except Exception as error:  # whatever a foreign tokenizer's files make the library raise
        raise BadInput(f"{source.path}: its tokenizer cannot be loaded: {first_line(error)}") from error
    if source.adapter and (source.adapter / TEMPLATE).is_file():
        tokenizer.chat_template = read_text(source.adapter / TEMPLATE)
    if not tokenizer.chat_template:
        raise BadInput(f"{source.path}: no chat template; expected an instruction-tuned chat model")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_chat_tokenizer(source: Source) -> Any:
    """`load_tokenizer` of a model that is trained and tested: its chat template must do for both (BadInput)."""
    tokenizer = load_tokenizer(source)
    try:
        check_template(tokenizer)
    except BadInput as error:
        raise BadInput(f"{source.path}: {error}") from None
    return tokenizer


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    text = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
    return f"{type(error).__name__}: {text[:250]}" if text else type(error).__name__
