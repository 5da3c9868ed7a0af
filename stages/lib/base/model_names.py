"""How a model may be named in params.yaml: embedded/..., a folder, or a hub name; and where its files then lie."""

import re
from os.path import normpath
from shlex import quote

from stages.lib.base.errors import short
from stages.lib.base.model_files import FILES

CHAT_MODELS = tuple(FILES)
GUARDS = ("embedded/guard",)
# the protocol of a safeguard model, by what its name holds
SPOKEN = {"embedded/guard": "llama_guard_3", "llama-guard": "llama_guard_3", "qwen3guard": "qwen3guard"}
NO_FILES, GUARD_FILES = "models/base", "models/embedded/guard"  # what model.files and judge.files are in params.yaml


def is_folder(name: str) -> bool:
    """Whether a model name is a path (starts with / ./ or ../) rather than an embedded or hub name."""
    return name.startswith(("/", "./", "../"))


def check_model_name(name: str, revision: str | None, embedded: tuple[str, ...]) -> None:
    """Refuse a name that is no folder, embedded or hub name, and a hub name without a pinned revision (ValueError)."""
    if is_folder(name) or name.startswith("embedded/"):
        if revision is not None:
            raise ValueError(f"{name!r} takes no revision: only a hub model has one, set it to null")
        if name.startswith("embedded/") and name not in embedded:
            raise ValueError(f"no embedded model {name!r} for this; there is {', '.join(embedded)}")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise ValueError(f"{name!r} is neither an embedded model, a folder (./name), nor a hub name (owner/name)")
    elif revision is None:
        raise ValueError(f"hub model {name!r} needs a revision (full commit hash), so that the weights cannot change")


def check_model_files(section: str, name: str, files: str) -> None:
    """Refuse a model read from a folder of which DVC, which is told of `files`, does not know (ValueError).

    Other weights saved into that folder would change no dependency: cached answers would be taken for theirs.
    """
    folder = name if is_folder(name) else f"models/{name}" if name in GUARDS else None
    if folder and normpath(files) != normpath(folder):
        raise ValueError(
            f"the model is read from {short(folder)}, but {section}.files, by which DVC knows that a model changed, is "
            f"{short(files)}; expected the same folder: add -S {quote(f'{section}.files={folder}')}"
        )
