"""Linear layers laid out once for the CPU's matrix kernels.

torch multiplies on a CPU with the weights as they lie in memory. oneDNN, given them in blocks of its own, is faster on
the few dozen rows of a decoding step (`python -m bench.linear`): on an AMD EPYC with AVX2, in float32, 2.5 times with
16 rows, 2 with 64, 1.4 with 512; on one with AVX-512, in bfloat16, 1.4 to 2 times with 16, 1.2 to 1.4 with 64, 1.1 with
512. The sums are in another order, as with other threads.

A LoRA adapter's second matrix becomes further columns of the layer's own: W x + s B (A x) is [W, s B] times x with A x
behind it. One product in place of peft's two, a scaling, a sum and several changes of dtype over the layer's whole
width, which together took as long as the layer itself.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners import lora
from peft.tuners.lora import LoraLayer


class LaidOut(torch.nn.Module):
    """A linear layer for inference; torch's own packing, which its compiler uses, too."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")


def _with_adapter(layer: LoraLayer, rows: torch.Tensor) -> torch.Tensor:
    """What a LoRA layer computes once `lay_out` has widened the layer under it. Switched off, nothing is behind x."""
    first = layer.lora_A[layer.active_adapters[0]].weight
    if layer.disable_adapters:
        behind = rows.new_zeros(*rows.shape[:-1], len(first))
    else:
        behind = torch.nn.functional.linear(rows, first)
    return layer.base_layer(torch.cat([rows, behind], -1))


def has_16_bits() -> bool:
    """Whether the matrix kernels for this CPU compute in bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def lay_out(model: Any) -> Any:
    """The model with its linear layers laid out, where oneDNN serves the CPU that it computes on.

    Plain LoRA goes into the layer that it is on, and still can be switched off; a layer whose weights an adapter of
    another kind reads (DoRA: their lengths) stays as it is. Takes as much memory as before, but for an output layer
    that is the embedding as well, which is then there twice.
    """
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return model
    served = (torch.float32, torch.bfloat16) if has_16_bits() else (torch.float32,)
    for owner in list(model.modules()):
        if isinstance(owner, torch.nn.ModuleDict):  # in which peft keeps an adapter's matrices
            continue
        if isinstance(owner, LoraLayer) and _is_plain(owner) and owner.base_layer.weight.dtype in served:
            _widen(owner)
        if hasattr(owner, "base_layer") and getattr(owner, "lora_variant", True):
            continue
        for name, child in list(owner.named_children()):
            if type(child) is torch.nn.Linear and child.weight.dtype in served:
                setattr(owner, name, LaidOut(child.weight, child.bias))
    return model


def _is_plain(layer: LoraLayer) -> bool:
    """Whether this is one LoRA adapter on a linear layer, and no more than W x + s B (A x)."""
    names = layer.active_adapters
    return (
        type(layer) is lora.Linear
        and type(layer.base_layer) is torch.nn.Linear
        and len(names) == 1
        and names[0] in layer.lora_A
        and not layer.lora_variant
        and not layer.merged
        and layer.lora_B[names[0]].bias is None
    )


def _widen(layer: LoraLayer) -> None:
    base, name = layer.base_layer, layer.active_adapters[0]
    second = layer.lora_B[name].weight * layer.scaling[name]
    layer.base_layer = LaidOut(torch.cat([base.weight, second.to(base.weight.dtype)], 1), base.bias)
    layer.lora_A[name].to(base.weight.dtype)
    layer.forward = partial(_with_adapter, layer)
