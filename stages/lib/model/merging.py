"""An adapter merged into its model, and whether what is written computes what it was made from.

Models are compared by the logits of a few prompts: how far apart they are, as a share of the logits' own spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from stages.lib.base.errors import BadInput
from stages.lib.model.adapters import modules_of
from stages.lib.model.embedded import WEIGHTS
from stages.lib.model.models import set_strength
from stages.lib.model.tensors import read_shapes

LAST = 16  # positions of each prompt whose logits are compared
# (W + BA) x and W x + B(A x) are one sum in two orders: in float32, with a rounding of 1.2e-7, the two models' logits
# come out 2e-6 of their spread apart (135M parameters, 30 layers, and two layers of random weights alike); a thousand
# roundings leave room for deeper ones. An output layer that is not its own came out 8e-3 to 1.1 apart.
NOISE = 1000 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Merging:
    """Logits on the same prompts, computed in float32: of the model with its adapter, of the model alone, of the
    checkpoint as written."""

    tuned: torch.Tensor
    base: torch.Tensor
    written: torch.Tensor


@torch.no_grad()
def logits(model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The logits after the last tokens of each prompt (of ids), in float32; less their mean, which decides nothing."""
    found = [model(torch.tensor([ids], device=model.device), logits_to_keep=LAST).logits[0] for ids in prompts]
    whole = torch.cat(found).float().cpu()
    return whole - whole.mean(-1, keepdim=True)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two models' logits are apart, as a share of the spread of the first's."""
    return float((one - other).norm() / one.norm())


def tied(model: Any) -> set[str]:
    """Modules that share their weight with another, as most small models' output layer does with the embedding."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if (weight := module._parameters.get("weight")) is not None:
            owners.setdefault(id(weight), []).append(name.rpartition(".")[2])
    return {name for names in owners.values() if len(names) > 1 for name in names}


def check_mergeable(folder: Path, adapter: Path) -> None:
    """Refuse, before weights are loaded, an adapter on a weight that the model in a folder uses twice (BadInput)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    if twice := sorted(tied(model) & modules_of(read_shapes(adapter / WEIGHTS))):
        raise BadInput(
            f"{adapter}: its adapter is on {twice[0]}, whose weight the model has in its embedding as well, so that "
            "merged into one it would change both, which was not measured; hand on the adapter itself (without "
            f"--merged), or tune without {twice[0]} in lora.target_modules"
        )


def end_turns(model: Any, ends: set[int]) -> None:
    """Have the model's generation settings name all the tokens that ended its turns when it was measured."""
    own = model.generation_config.eos_token_id
    if ends - set(own if isinstance(own, list) else [own]):
        model.generation_config.eos_token_id = sorted(ends)


def merge(
    base: Any, adapter: Path, folder: Path, dtype: torch.dtype, prompts: Sequence[Sequence[int]], strength: float = 1.0
) -> Merging:
    """Write a float32 model with an adapter at its `strength` merged in to a folder, in `dtype`; rounded once.

    Raises BadInput where merging changed what the model computes, the files do not hold what was merged, or rounding
    undid the tuning.
    """
    with_it = PeftModel.from_pretrained(base, str(adapter), torch_device=str(base.device)).eval()
    set_strength(with_it, strength)
    tuned = logits(with_it, prompts)
    with with_it.disable_adapter():
        alone = logits(with_it, prompts)
    merged = with_it.merge_and_unload()
    off = apart(tuned, logits(merged, prompts))
    if off > NOISE:
        raise BadInput(
            f"{adapter}: merged into its model it computes something else: logits {off:.1e} of their spread apart, "
            f"where float32 leaves {NOISE:.1e}; nothing is handed on. The adapter itself can be"
        )
    merged.to(dtype).save_pretrained(folder)
    written = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(merged.device).eval()
    check_same(merged.state_dict(), written.state_dict(), folder)
    merged.to("meta")  # whoever called still holds it; its memory is needed
    made = Merging(tuned, alone, logits(written.float(), prompts))
    rounded, moved = apart(tuned, made.written), apart(tuned, alone)
    if rounded >= moved > NOISE:
        raise BadInput(
            f"{adapter}: merged and rounded to {dtype}, its weights are no nearer to the tuned model (logits "
            f"{rounded:.2%} of their spread apart) than the untuned ones are ({moved:.2%}); hand on the adapter itself"
        )
    return made


def check_same(made: Mapping[str, torch.Tensor], loaded: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Refuse a folder from which other weights are loaded than were written there (BadInput)."""
    other = [name for name in made if name not in loaded or not torch.equal(made[name], loaded[name])]
    if other or len(loaded) != len(made):
        first = (other or sorted({*loaded} - {*made}))[0]
        raise BadInput(
            f"{folder}: written and loaded again, {first} is another; nothing of it is used. Is the disk full?"
        )
