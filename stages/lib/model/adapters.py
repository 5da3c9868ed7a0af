"""An adapter that was made elsewhere: whether putting it on the base model has its full effect, and what it is.

LoRA's kind (rsLoRA, DoRA, whole modules beside it) as peft, TRL, Unsloth, axolotl, LLaMA-Factory and torchtune write
it. peft passes over what it does not know or find a place for; here that is refused by name. The base model's own
weights are not loaded for it, their shapes are.
"""

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput, short
from stages.lib.base.model_files import FILES
from stages.lib.base.sections import Model
from stages.lib.model.embedded import SETTINGS, WEIGHTS
from stages.lib.model.models import read_settings
from stages.lib.model.sources import Source, first_line
from stages.lib.model.tensors import check_finite, read_shapes

# settings of an adapter under which it was tried here that it loads as peft loads it; any other must say nothing
TRIED = {
    *(
        "peft_type",
        "task_type",
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "peft_version",
    ),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "lora_bias", "bias", "init_lora_weights"),
    *("target_modules", "exclude_modules", "modules_to_save", "trainable_token_indices", "ensure_weight_tying"),
    *("layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
    *("megatron_core", "qalora_group_size", "runtime_config", "loftq_config"),  # of no effect without what is refused
}
AS_IT_STARTED = (True, False, "gaussian", "orthogonal", "eva", None)  # these leave the base model's weights alone
MERGE = "merge it into its base model (peft's merge_and_unload) and name the whole weights instead"
CUT = "cut the model back to the base model's tokens (resize_token_embeddings), or tune the base model of these"


def check_adapter(folder: Path, base: Source, model: Model) -> tuple[dict[str, Any], list[str]]:
    """The settings of the adapter in a folder, and what it is in sentences. Raises BadInput if it does not go, whole,
    on the base model: `base` is where that is, `model` how params name it."""
    settings = read_settings(folder)
    named = _check_settings(settings, model)
    shapes = read_shapes(folder / WEIGHTS)
    check_finite(folder / WEIGHTS)
    _check_fit(folder, base, shapes)
    return settings, [_described(settings, shapes), named]


def modules_of(tensors: Iterable[str], whole: bool | None = None) -> set[str]:
    """The modules that tensors of an adapter are on, by the last part of their names; `whole` ones, or not, or both."""
    found = set()
    for name in tensors:
        module, beside, _ = name.partition(".lora_")
        if whole is None or whole != bool(beside):
            found.add((module if beside else name.rpartition(".")[0]).rpartition(".")[2])
    return found


def _described(settings: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> str:
    kinds = {"use_rslora": "rank-stabilized", "use_dora": "DoRA", "lora_bias": "with biases of its own"}
    ways = [words for key, words in kinds.items() if settings.get(key)]
    on, beside = (sorted(modules_of(shapes, whole)) for whole in (False, True))
    size = f"{len(shapes)} tensors, {sum(map(math.prod, shapes.values())):,} numbers"
    what = ", ".join(
        ["LoRA adapter", *ways, f"rank {short(settings.get('r'))}", f"alpha {short(settings.get('lora_alpha'))}"]
    )
    return f"{what}, on {', '.join(on) or 'nothing'}; beside it: {', '.join(beside) or 'nothing'}; {size}, all finite."


def _check_settings(settings: Mapping[str, Any], model: Model) -> str:
    """Refuse an adapter of another kind, with settings that were not tried, or of another base model. Returns what it
    says of its base model."""
    if settings.get("peft_type") != "LORA":
        raise BadInput(f"{SETTINGS}: peft_type: found {short(settings.get('peft_type'))}; expected LORA: {MERGE}")
    if settings.get("task_type") not in (None, "CAUSAL_LM"):
        raise BadInput(f"{SETTINGS}: task_type: found {short(settings['task_type'])}; expected CAUSAL_LM")
    start = settings.get("init_lora_weights", True)
    if start not in AS_IT_STARTED:
        raise BadInput(
            f"{SETTINGS}: init_lora_weights: found {short(start)}, which changed the base model's weights before the "
            "training: the adapter is of other weights than those here. Save it as a plain one (peft's "
            f"save_pretrained with path_initial_model_for_weight_conversion), or {MERGE}"
        )
    if other := sorted(key for key, value in settings.items() if value and key not in TRIED):
        raise BadInput(f"{SETTINGS}: {other[0]}: found {short(settings[other[0]])}; not measured here: {MERGE}")
    named, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    if not named or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(named)):
        return f"As its base model it names {short(named) if named else 'none'}, which says nothing here."
    if not is_named(model.name, named):
        raise BadInput(
            f"{SETTINGS}: base_model_name_or_path: found {short(named)}, but model.name is {model.name}. If "
            "they are the same weights, set it to null there; else name its own base model"
        )
    said = f"As its base model it names {named}"
    if revision and model.revision and revision != model.revision:
        return f"{said} at revision {revision}; it is measured on revision {model.revision}."
    return f"{said}, which model.name is as well."


def is_named(name: str, named: str) -> bool:
    """Whether the model that params call `name` may be the hub's `named`: by its name without whose copy it is, and how
    that was quantized for training (Unsloth's). Of an embedded model its file has the name."""
    plain, own = ((without_bits(each) or each).rpartition("/")[2].lower() for each in (named, name))
    if name in FILES:
        return FILES[name].file.lower().startswith((f"{plain}.q", f"{plain}-q"))
    return plain == own


def without_bits(name: str) -> str:
    """The model that one was quantized from for training, by its name (Unsloth's); empty if it is no such one."""
    plain = re.sub(r"(-unsloth)?-bnb-4bit$", "", name, flags=re.IGNORECASE)
    return "" if plain == name else plain


def _check_fit(folder: Path, base: Source, tensors: Mapping[str, Sequence[int]]) -> None:
    """Refuse an adapter of which not every tensor has a place of its shape in the base model, or that lacks one. The
    model is built without its weights (on torch's meta device), and peft puts the adapter on."""
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base.path, **base.options())
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rows = empty.get_input_embeddings().weight.shape[0]
    for name, shape in tensors.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")) and shape[0] != rows:
            raise BadInput(
                f"{WEIGHTS}: {name} has {shape[0]} tokens, but the base model {rows}: a resized vocabulary; {CUT}"
            )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is copied to the meta device, which torch says for each tensor
            settings = PeftConfig.from_pretrained(str(folder))
            settings.inference_mode = True
            settings.init_lora_weights = False  # whose first values are written over
            model = PeftModel(empty, settings)
            loaded = model.load_adapter(str(folder), "default", torch_device="cpu")
    except KeyError as error:  # a whole module that it says it has
        raise BadInput(f"{WEIGHTS}: it lacks {error}") from None
    except Exception as error:  # whatever a foreign adapter makes the library raise
        raise BadInput(f"{folder}: the adapter does not fit the base model: {first_line(error)}") from None
    if loaded.missing_keys:
        raise BadInput(f"{WEIGHTS}: it lacks {', '.join(sorted(loaded.missing_keys)[:3])}")
    if loaded.unexpected_keys:
        raise BadInput(
            f"{WEIGHTS}: {sorted(loaded.unexpected_keys)[0]} has no place in the base model "
            f"({len(loaded.unexpected_keys)} such of {len(tensors)}); was the adapter made for another model?"
        )
