"""The embedded models: published GGUF files found by their content (carriers.py), and one that is an adapter here.

embedded/smollm2-135m                 SmolLM2-135M-Instruct, the smallest: tests, machines with little of everything
embedded/qwen2.5-coder-0.5b-instruct  Qwen2.5-Coder-0.5B-Instruct, the default: of the study's own family
embedded/qwen2.5-coder-1.5b-instruct  its larger sibling
embedded/guard                        the safeguard model: the one that the adapter in models/embedded/guard names as
                                      its base, with that adapter on it

On first use a model is written to ~/.cache/aftertune (or $XDG_CACHE_HOME/aftertune) as bf16 safetensors: 0.27, 1.3 and
3.6 GB, after the download half a minute for the default. A folder's name holds the hashes of what
it was made from. In 4 bits it is kept, too, once it was packed (models.py): 0.7 GB for the default.
"""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from stages.lib.base.errors import BadInput
from stages.lib.base.files import cache_folder, damage, read_text, write_sums
from stages.lib.base.model_files import FILES
from stages.lib.base.waiting import held
from stages.lib.fetch.carriers import model_file

ADAPTERS = Path(__file__).parents[3] / "models" / "embedded"
WEIGHTS, SETTINGS, TEMPLATE = "adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"


def embedded_folder(name: str) -> Path:
    """The files of a published model, made now if they are missing or one is not as its hash says."""
    return kept(_folder_name(name), lambda part: _unpack(name, part))


def adapter_folder(name: str) -> Path:
    """Where the adapter of an embedded model that is no published file is."""
    return ADAPTERS / _short(name)


def base_name(adapter: Path) -> str:
    """The embedded model that an adapter was made for. Raises BadInput if a file of it is not as SHA256SUMS says."""
    if wrong := damage(adapter):
        raise BadInput(f"{wrong}; fetch it from git again")
    return json.loads(read_text(adapter / SETTINGS))["base_model_name_or_path"]


def check_adapter(name: str) -> None:
    """Refuse, without loading anything, an embedded model whose adapter is not there."""
    weights = adapter_folder(name) / WEIGHTS
    if name not in FILES and not weights.is_file():
        raise BadInput(f"{name}: {weights} is missing; fetch it from git again, or make it with `make embedded`")


def _short(name: str) -> str:
    return name.removeprefix("embedded/")


def _folder_name(name: str) -> str:
    """A published model's folder in the cache."""
    return f"{_short(name)}-{FILES[name].sha256[:8]}"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, made (whole or not at all) unless all its files have their hashes."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with held(cache / "unpack.lock", f"models in {cache} are being checked, fetched or made"):
        if damage(folder):
            part = cache / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            make(part)
            write_sums(part)
            shutil.rmtree(folder, ignore_errors=True)
            part.replace(folder)
    return folder


def _unpack(name: str, part: Path) -> None:
    """Write a GGUF file's model as bf16 safetensors; the file itself is not kept."""
    fetched = cache_folder() / f"{_short(name)}.download"
    gguf = model_file(name, FILES[name], fetched)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"{name}: unpacking, once", file=sys.stderr)
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that has no switch
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(**where).save_pretrained(part)
    shutil.rmtree(fetched)
