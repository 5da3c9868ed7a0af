"""Base models, 4-bit NF4, the tuned adapter on top. Safetensors only, no remote code."""

import json
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.files import SUMS, cache_folder, damage, read_text
from stages.lib.base.sections import Model
from stages.lib.model.device import computed_in, device, free_memory, quiet, reuse_freed_memory
from stages.lib.model.embedded import kept
from stages.lib.model.sources import Source, check_folder, find, first_line, load_chat_tokenizer


def load_base(source: Source, quantization: str, dtype: str) -> Any:
    """The untouched model on the best device, in evaluation mode, with neutral generation settings.

    Hub models carry their own (Qwen2.5's say repetition_penalty 1.05 to 1.1 and top_p 0.8), which `generate` mixes into
    every call, greedy ones too: they are replaced here. Raises BadInput if the weights cannot be loaded.
    """
    from transformers import GenerationConfig

    quiet()
    reuse_freed_memory()
    dtype = computed_in(dtype)
    if quantization == "nf4" and device().type == "cpu" and Path(source.path).parent == cache_folder():
        source, quantization = _packed(source, dtype), "as it is"
    model = _load(source, quantization, dtype)
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    return model.eval()


def _packed(source: Source, dtype: str) -> Source:
    """An embedded model in 4 bits, packed once: bitsandbytes takes 10 s for it on a CPU, each time to the same bits."""
    name = f"{Path(source.path).name}-nf4-{dtype}-bitsandbytes-{version('bitsandbytes')}"
    return Source(str(kept(name, lambda part: _pack(source, dtype, part))), None)


def _pack(source: Source, dtype: str, part: Path) -> None:
    from stages.lib.model.merging import check_same

    packed = _load(source, "nf4", dtype)
    packed.save_pretrained(part)
    check_same(packed.state_dict(), _load(Source(str(part), None), "as it is", dtype).state_dict(), part)


def nf4(dtype: Any) -> Any:
    """How transformers is told of 4-bit NF4 weights with double quantization, computed with in a dtype of torch's."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _load(source: Source, quantization: str, dtype: str) -> Any:
    """The model as its files have it, in 4 bits if `quantization` is nf4. Raises BadInput if it cannot be loaded."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    options: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,  # refused below, by name
        "device_map": {"": device()},
    }
    if quantization == "nf4":
        options["quantization_config"] = nf4(options["dtype"])
    try:
        if (Path(source.path) / "generation_config.json").is_file():  # else passed over without a word if broken
            GenerationConfig.from_pretrained(source.path)
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.path, **source.options(), **options, output_loading_info=True
        )
    except Exception as error:  # whatever a foreign model's files make the library raise, out of memory included
        raise BadInput(f"{source.path}: the model cannot be loaded: {first_line(error)}") from error
    if loading["mismatched_keys"]:
        name, found, expected = sorted(loading["mismatched_keys"])[0]
        raise BadInput(f"{source.path}: {name} is {tuple(found)} in the weights, but {tuple(expected)} by config.json")
    if loading["missing_keys"]:  # they would be random, and no more than logged
        raise BadInput(f"{source.path}: the weights lack {', '.join(sorted(loading['missing_keys'])[:3])}")
    return model


def load_subject(model: Model, folder: Path, tuned: bool, strength: float = 1.0) -> tuple[Any, Any]:
    """(model, tokenizer) to generate with: the base model of params with an adapter or weights from `folder`, if any;
    an adapter at a `strength` from 0 to 1.

    Raises BadInput if the adapter was made for another base model or cannot be loaded whole, if a file is not the one
    that its SHA256SUMS names, and if `tuned` is true but the folder holds nothing (it would be measured as a tuning
    that changed nothing).
    """
    if (folder / SUMS).is_file() and (wrong := damage(folder)):
        raise BadInput(f"{wrong}; run finetune again (`dvc repro` restores it, too)")
    source = find(model.name, model.revision)
    tokenizer = load_chat_tokenizer(source)
    adapter = None
    if (folder / "adapter_config.json").is_file():
        _check_adapter(folder, model)
        adapter = folder
    elif (folder / "config.json").is_file():
        check_folder(folder)
        source = Source(str(folder), None)
    elif tuned:
        raise BadInput(f"{folder}: neither an adapter nor a model is there; run the finetune stage first")
    if tuned and strength != 1 and not adapter:
        raise BadInput(f"lora.strength is {strength}, but {folder} holds whole weights, no adapter; set it to 1")
    return load_for_generation(source, model.quantization, model.dtype, adapter, strength), tokenizer


def load_for_generation(
    source: Source, quantization: str, dtype: str, adapter: Path | None = None, strength: float = 1.0
) -> Any:
    """`load_base` with an adapter on, the source's own if none is named, its weights laid out for matrix kernels; 4-bit
    ones are written out before that, once, in the dtype of the computation, if memory holds them.

    bitsandbytes does so again in every pass, to the same values; without that, embedded decoding is twice as fast. Only
    before the first pass: on a CPU, bitsandbytes then rearranges the weights, and writing them out gives other values.
    """
    from stages.lib.model.linear import lay_out

    adapter = adapter or source.adapter
    model = load_base(source, quantization, dtype)
    if quantization != "none" and 1.5 * model.dtype.itemsize * model.num_parameters() < free_memory(model.device):
        model = model.dequantize(model.dtype)
    return lay_out(set_strength(_put_on(model, adapter), strength) if adapter else model)


def set_strength(model: Any, strength: float) -> Any:
    """The model with what its LoRA adapter adds multiplied by `strength`: so far on the straight line from the untuned
    weights to the tuned ones, as WiSE-FT goes (arXiv:2109.01903). Raises BadInput where not all of an adapter is such
    a sum: DoRA's, or with biases or whole modules beside it."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if strength == 1:
        return model
    modules = list(model.modules())
    other = any(isinstance(each, AuxiliaryTrainingWrapper) or getattr(each, "lora_variant", None) for each in modules)
    if other or has_biases(model):
        raise BadInput(
            f"lora.strength is {strength}, but this adapter has parts that are no sum with the untuned weights "
            "(DoRA's, or biases or whole modules beside it); set lora.strength to 1"
        )
    for module in modules:
        if isinstance(module, LoraLayer):
            for name in module.active_adapters:  # peft's scale_layer passes over one on an embedding
                module.scaling[name] *= strength
    return model


def has_biases(model: Any) -> bool:
    """Whether an adapter tuned the model's own biases: switched off, peft leaves them as they were tuned."""
    return any(each.bias != "none" for each in model.peft_config.values())


def check_length(model: Any, lengths: Sequence[int], what: str) -> None:
    """Refuse texts longer than the model's context, where its answers would be garbage. Lengths are in tokens."""
    limit = getattr(model.config, "max_position_embeddings", None)
    for number, length in enumerate(lengths, 1):
        if limit and length > limit:
            raise BadInput(f"{what} {number} takes {length} tokens, but the model's context holds {limit}")


def read_settings(folder: Path) -> dict[str, Any]:
    """An adapter's adapter_config.json. Raises BadInput if it is no JSON object or holds NaN or infinity."""
    try:
        return dict(json.loads(read_text(folder / "adapter_config.json"), parse_constant=_no_constant))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"{folder}/adapter_config.json: not a JSON object ({error})") from None


def _check_adapter(folder: Path, model: Model) -> None:
    if not (folder / "adapter_model.safetensors").is_file():
        raise BadInput(f"{folder}: adapter_model.safetensors is missing; other weight formats (pickles) are not loaded")
    config = read_settings(folder)
    made_for = (config.get("base_model_name_or_path"), config.get("revision"))
    if made_for != (model.name, model.revision):
        raise BadInput(
            f"{folder}: this adapter was made for {made_for[0]} (revision {made_for[1]}), but params.yaml names "
            f"{model.name} (revision {model.revision}); run finetune again"
        )


def _no_constant(name: str) -> float:
    """What JSON reads NaN and Infinity as: no scale of an adapter."""
    raise ValueError(f"{name} in it")


def _put_on(base: Any, folder: Path) -> Any:
    """The base model with the adapter on; an adapter that lacks weights is refused (peft would only warn)."""
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="(?s).*missing adapter keys")
            # else peft opens every adapter on the first GPU, whichever the model is on
            model = PeftModel.from_pretrained(base, str(folder), torch_device=str(base.device)).eval()
    except Exception as error:  # whatever a damaged adapter makes the library raise
        raise BadInput(f"{folder}: the adapter cannot be loaded: {first_line(error)}") from error
    broken = [name for name, weight in model.named_parameters() if "lora_" in name and not weight.isfinite().all()]
    if broken:
        raise BadInput(f"{folder}: the adapter holds nan or infinity, in {broken[0]}; run finetune again")
    return model


def _contiguous(_module: Any, arguments: tuple) -> tuple:
    """Hand the output layer a contiguous hidden state. From the strided slice of a prompt's last positions torch
    multiplies row by row, copying a frozen weight for each row: 6 s for 48 rows of the embedded model on a CPU."""
    return (arguments[0].contiguous(), *arguments[1:])
