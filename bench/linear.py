"""Linear layers as torch has them and as `lay_out` lays them out, on this machine's CPU.

    python -m bench.linear

GFLOP/s for the shapes of Qwen2.5-0.5B (hidden 896, MLP 4864, vocabulary 151,936) and so many rows, in float32
and, where the CPU has instructions for 16 bits, in bfloat16; a minute at most.
"""

import torch
from tabulate import tabulate
from torch.utils.benchmark import Timer

from stages.lib.base.cli import run
from stages.lib.model.linear import LaidOut, has_16_bits

ROWS = (1, 4, 16, 64, 154, 512)
SHAPES = ((896, 4864), (4864, 896), (896, 151_936))
SECONDS = 0.4


def rate(layer: torch.nn.Module, x: torch.Tensor, operations: int) -> float:
    """GFLOP/s of a layer on x: the median over SECONDS."""
    timer = Timer("layer(x)", globals={"layer": layer, "x": x}, num_threads=torch.get_num_threads())
    return operations / timer.blocked_autorange(min_run_time=SECONDS).median / 1e9


@torch.no_grad()
def main() -> None:
    lines = []
    for dtype in (torch.float32, torch.bfloat16) if has_16_bits() else (torch.float32,):
        for inputs, outputs in SHAPES:
            plain = torch.nn.Linear(inputs, outputs, bias=False, dtype=dtype)
            laid_out = LaidOut(plain)
            for rows in ROWS:
                x = torch.randn(rows, inputs, dtype=dtype)
                rates = [rate(layer, x, 2 * rows * inputs * outputs) for layer in (plain, laid_out)]
                name = str(dtype).removeprefix("torch.")
                lines.append([name, f"{inputs} x {outputs}", rows, *rates, rates[1] / rates[0]])
    headers = ["computed in", "weights", "rows", "torch, GFLOP/s", "laid out, GFLOP/s", "ratio"]
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    print(tabulate(lines, headers, tablefmt="github", floatfmt=".1f"))


if __name__ == "__main__":
    run(main)
