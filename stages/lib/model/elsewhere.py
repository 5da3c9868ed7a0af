"""A model that was tuned elsewhere: which files are it, and whether they are a tuning of the base model here.

An adapter (adapters.py) or whole weights. What would answer other prompts than the base model is asked is refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput, short
from stages.lib.base.files import read_text
from stages.lib.base.model_names import is_folder
from stages.lib.base.sections import Model
from stages.lib.fetch.hub import tuned_folder
from stages.lib.model.adapters import CUT, check_adapter
from stages.lib.model.embedded import SETTINGS, WEIGHTS
from stages.lib.model.sources import Source, check_folder, find, load_tokenizer
from stages.lib.model.tensors import check_finite, read_shapes
from stages.lib.model.tokens import check_same

# of config.json: what says nothing of what the weights compute
INDIFFERENT = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"}


@dataclass(frozen=True)
class Elsewhere:
    """What was tuned elsewhere: an adapter or whole weights, its files, its settings if it is an adapter, and what was
    found of it, in sentences."""

    kind: str
    files: Sequence[Path]
    settings: Mapping[str, Any]
    found: Sequence[str]


def check_elsewhere(name: str, revision: str | None, base: Source, model: Model) -> Elsewhere:
    """The model of this name, which must be a tuning of the base model (BadInput): `base` is where that is, `model` how
    params name it."""
    if is_folder(name):
        folder = Path(name)
    else:
        folder = Path(find(name, None).path) if name.startswith("embedded/") else tuned_folder(name, revision)
    try:
        if not (folder / SETTINGS).is_file():
            (files, found), settings = _check_whole(folder, base), {}
        elif list(folder.glob("model*.safetensors")):
            raise BadInput("an adapter and whole weights; leave one of the two there")
        else:
            files = [folder / WEIGHTS]
            settings, found = check_adapter(folder, base, model)
        return Elsewhere("adapter" if settings else "whole", files, settings, [*found, _tokenizer_found(folder, base)])
    except BadInput as error:
        raise BadInput(f"tuned.model {name}: {error}") from None


def _check_whole(folder: Path, base: Source) -> tuple[list[Path], list[str]]:
    """The files of the whole weights in a folder, and what they are in sentences."""
    check_folder(folder)
    config, other = (_config(Path(where)) for where in (folder, base.path))
    if config.get("quantization_config"):
        raise BadInput(
            "config.json: quantization_config: these weights were saved quantized; save them in 16 bits (Unsloth: "
            "merged_16bit), and model.quantization quantizes both models alike"
        )
    if (own := config.get("model_type")) != (expected := other.get("model_type")):
        raise BadInput(f"config.json: model_type: found {short(own)}; the base model's is {short(expected)}")
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise BadInput("no model*.safetensors there; other weight formats (pickles) are not loaded")
    shapes = _all_shapes(files)
    _check_shapes(shapes, _all_shapes(sorted(Path(base.path).glob("model*.safetensors"))))
    for file in files:
        check_finite(file)
    unlike = sorted(key for key in {*config, *other} - INDIFFERENT if config.get(key) != other.get(key))
    size = f"{len(shapes)} tensors, {sum(map(math.prod, shapes.values())):,} numbers"
    found = [
        f"Whole weights, {size}, all finite, of the base model's shapes.",
        f"Its config.json differs from the base model's in: {', '.join(unlike) or 'nothing'}.",
    ]
    also = ("model.safetensors.index.json", "config.json", "generation_config.json")
    return [*files, *(folder / name for name in also if (folder / name).is_file())], found


def _check_shapes(tensors: Mapping[str, Sequence[int]], expected: Mapping[str, Sequence[int]]) -> None:
    """Refuse weights of other names or shapes. An output layer that is the embedding as well may be there or not."""
    for name, shape in tensors.items():
        if name in expected and shape != expected[name]:
            vocabulary = name.endswith(("embed_tokens.weight", "lm_head.weight"))
            mend = f"a resized vocabulary; {CUT}" if vocabulary else "it is no tuning of that model"
            raise BadInput(f"{name} is {list(shape)}, but {list(expected[name])} in the base model: {mend}")
    apart = sorted(name for name in {*tensors} ^ {*expected} if name != "lm_head.weight" and "inv_freq" not in name)
    if apart:
        which = "only the tuned weights have" if apart[0] in tensors else "the tuned weights lack"
        raise BadInput(f"{which} {apart[0]} ({len(apart)} such): it is no tuning of that model")


def _tokenizer_found(folder: Path, base: Source) -> str:
    """What its own tokenizer, if it brings one, has to do with the base model's, by which both are asked.

    Raises BadInput where they are not one.
    """
    if not (folder / "tokenizer_config.json").is_file():
        return "It brings no tokenizer; the base model's is used."
    asked = load_tokenizer(base)
    try:
        own = load_tokenizer(Source(str(folder), None))
    except BadInput as error:
        if "no chat template" in str(error):
            return "Its tokenizer has no chat template; the base model's is used."
        raise BadInput(f"{error}; remove the tokenizer's files from there if the base model's will do") from None
    try:
        added = check_same(own, asked)
    except BadInput as error:
        raise BadInput(
            f"{error}: it was tuned on other prompts than the base model is asked. Take its base model, set the "
            "wrong one of two templates right, or remove the tokenizer's files there: the base model's is taken then"
        ) from None
    if added:
        first = ", ".join(map(short, added[:3]))
        return f"Its tokenizer adds {len(added)} tokens ({first}); what it writes in them is not read."
    return "Its tokenizer and its chat template are the base model's."


def _all_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    return {name: shape for file in files for name, shape in read_shapes(file).items()}


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(read_text(folder / "config.json")))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"config.json: not a JSON object ({error})") from None
