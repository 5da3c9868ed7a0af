"""Attention of a training row behind a shared prefix, forward and backward, on the CPU in bfloat16: two ways.

    python -m bench.attention

Prints milliseconds of torch's scaled_dot_product_attention and of what training uses in its place where that is slow
(stages/lib/train/packing.py), in turn, at the shapes of Qwen2.5's 0.5B and 1.5B; and how far each is from the same in
float32: the output and the three gradients, the largest relative difference of the four.
"""

import time
from collections.abc import Callable
from statistics import median

from tabulate import tabulate

from stages.lib.base.cli import no_arguments, run

ROWS = ((115, 115), (115, 145), (300, 450), (115, 900), (600, 600))  # (tokens of the row, with the prefix before it)
HEADS = {"0.5B": (14, 2, 64), "1.5B": (12, 2, 128)}  # queries, keys, size
ROUNDS = 15


def main() -> None:
    no_arguments(__doc__)
    import torch

    from stages.lib.train import packing

    def torchs(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        return packing._attend(query, key, value, dropout_p=0.0, scale=scale)

    def made(model: str, row: tuple[int, int]) -> list[torch.Tensor]:
        heads, groups, size = HEADS[model]
        shapes = ((heads, row[0]), (groups, row[1]), (groups, row[1]))
        return [torch.randn(1, *shape, size, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]

    def both(attend: Callable[..., torch.Tensor], given: list[torch.Tensor], back: torch.Tensor) -> list[torch.Tensor]:
        out = attend(*given, given[0].shape[-1] ** -0.5)
        return [out, *torch.autograd.grad(out, given, back)]

    lines = []
    for model in HEADS:
        for row in ROWS:
            given = made(model, row)
            back = torch.randn_like(given[0])
            exact = both(torchs, [each.detach().float().requires_grad_() for each in given], back.float())
            ways: dict[str, Callable[..., torch.Tensor]] = {
                "torch": torchs,
                "ours": packing._AttendIn16Bits.apply,
            }
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, attend in ways.items():
                    start = time.perf_counter()
                    both(attend, given, back)
                    times[way].append(1000 * (time.perf_counter() - start))
            off = {
                way: max(
                    float(((got - want).norm() / want.norm()).detach())
                    for got, want in zip(both(attend, given, back), exact, strict=True)
                )
                for way, attend in ways.items()
            }
            cells = [f"{median(times[way]):.2f} ms, {off[way]:.4f}" for way in ways]
            faster = median(a / b for a, b in zip(times["torch"], times["ours"], strict=True))
            lines.append([model, f"{row[0]} of {row[1]}", *cells, f"{faster:.1f}"])
    print(tabulate(lines, ["model", "tokens", "torch", "ours", "times faster"], tablefmt="github"))


if __name__ == "__main__":
    run(main)
