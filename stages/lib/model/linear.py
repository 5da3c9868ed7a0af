"""Linear layers laid out once for the CPU's matrix kernels.

torch multiplies on a CPU with the weights as they lie in memory. oneDNN, given them in blocks of its own, is faster on
the few dozen rows of a decoding step (`python -m bench.linear`): on an AMD EPYC with AVX2, in float32, 2.5 times with
16 rows, 2 with 64, 1.4 with 512; on one with AVX-512, in bfloat16, 1.4 to 2 times with 16, 1.2 to 1.4 with 64, 1.1 with
512. The sums are in another order, as with other threads.
"""

from typing import Any

import torch


class LaidOut(torch.nn.Module):
    """A linear layer for inference; torch's own packing, which its compiler uses, too."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")


def has_16_bits() -> bool:
    """Whether the matrix kernels for this CPU compute in bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def lay_out(model: Any) -> Any:
    """The model with its linear layers laid out, where oneDNN serves the CPU that it computes on.

    An adapter's own small matrices stay as they are, and so does a layer whose weights an adapter of another kind than
    plain LoRA reads (DoRA: their lengths). Takes as much memory as before, but for an output layer that is the
    embedding as well, which is then there twice.
    """
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return model
    served = (torch.float32, torch.bfloat16) if has_16_bits() else (torch.float32,)
    for owner in list(model.modules()):
        if isinstance(owner, torch.nn.ModuleDict):  # in which peft keeps an adapter's matrices
            continue
        if hasattr(owner, "base_layer") and getattr(owner, "lora_variant", True):
            continue
        for name, child in list(owner.named_children()):
            if type(child) is torch.nn.Linear and child.weight.dtype in served:
                setattr(owner, name, LaidOut(child))
    return model
