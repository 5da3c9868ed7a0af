"""A model's output layer used a piece at a time, and how far two models' next-token distributions are apart.

With 151,936 words, the logits of 2,048 tokens are 1.2 GB in float32: they are never all in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

PIECE = 128  # positions whose logits are in memory at a time: 80 MB of them in float32 with 151,936 words


@contextmanager
def without_head(model: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """For the time being, the model's call returns hidden states in place of logits; yields the output layer's own
    call, which makes logits of them."""
    head = model.get_output_embeddings()
    whole = head.forward
    head.forward = lambda hidden: hidden
    try:
        yield whole
    finally:
        head.forward = whole


def divergence(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """KL(before || after) in nats of each row of logits (rows, words): what it costs to expect `after` of `before`."""
    before = before.log_softmax(-1)
    return (before.exp() * (before - after.log_softmax(-1))).sum(-1)
