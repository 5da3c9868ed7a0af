"""Linear layers as torch has them and as `lay_out` lays them out, in float32 on this machine's CPU.

    python -m bench.linear

GFLOP/s for the shapes of Qwen2.5-0.5B (hidden 896, MLP 4864, vocabulary 151,936) and so many rows; half a minute.
"""

import torch
from tabulate import tabulate
from torch.utils.benchmark import Timer

from stages.lib.model.linear import LaidOut

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
    for inputs, outputs in SHAPES:
        plain = torch.nn.Linear(inputs, outputs, bias=False)
        laid_out = LaidOut(plain)
        for rows in ROWS:
            x = torch.randn(rows, inputs)
            rates = [rate(layer, x, 2 * rows * inputs * outputs) for layer in (plain, laid_out)]
            lines.append([f"{inputs} x {outputs}", rows, *rates, rates[1] / rates[0]])
    headers = ["weights", "rows", "torch, GFLOP/s", "laid out, GFLOP/s", "ratio"]
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    print(tabulate(lines, headers, tablefmt="github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
