"""Train the upper layers of a frozen model only, without computing the lower ones again in every epoch.

What the lower layers make of a training row never changes. So it is computed once and put in place of the embeddings:
a row's input_ids become places in that table, the lower layers pass on what they get, and the training loop is none the
wiser. It halves the cost of an epoch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from stages.lib.model.attention import shared_prefix, use_attention
from stages.lib.train.packing import NAME, Row, pack

TOGETHER = 8  # rows of a pass


class _PassOn(torch.nn.Module):
    """A layer that does nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


@torch.no_grad()
def computed_once(model: Any, rows: Sequence[Row], lower: int) -> list[Row]:
    """Put what the first `lower` layers make of each token into the model; returns the rows as places in it.

    Changes the model: its embeddings are the table, its lower layers are gone.
    """
    inner = model.model
    shared = rows[0]["input_ids"][: shared_prefix([row["input_ids"] for row in rows])]
    prefix = len(shared)
    table: list[torch.Tensor] = []
    placed: list[Row] = []
    size = prefix
    with _only_lower(inner, lower), use_attention(model, NAME):
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            packed = pack(part, shared)
            given = {name: packed[name] for name in ("input_ids", "position_ids", "pack")}
            states = inner(**given, use_cache=False).last_hidden_state[0]
            table.append(states[0 if not table else prefix :])
            for row in part:
                rest = len(row["input_ids"]) - prefix
                placed.append({**row, "input_ids": [*range(prefix), *range(size, size + rest)]})
                size += rest
    inner.embed_tokens = torch.nn.Embedding.from_pretrained(torch.cat(table), freeze=True)
    for place in range(lower):
        inner.layers[place] = _PassOn()
    return placed


@contextmanager
def _only_lower(inner: Any, lower: int) -> Iterator[None]:
    """For the time being, the model ends after its first `lower` layers."""
    layers, norm = list(inner.layers), inner.norm
    for place in range(lower, len(layers)):
        inner.layers[place] = _PassOn()
    inner.norm = torch.nn.Identity()
    try:
        yield
    finally:
        inner.norm = norm
        for place, layer in enumerate(layers):
            inner.layers[place] = layer
