"""Training rows packed behind one copy of the tokens they all begin with: one pass for a whole optimizer step.

A pack is one sequence: the shared prefix (the example problems), then what follows it in each row, without padding.
Position ids restart after the prefix, and a row attends to the prefix and to itself only, so every token gets the
hidden state it would have in its own row. A prefix token that carries loss counts once for each row. Loss and gradients
are therefore those of the unpacked rows (a test holds it in float32 to 1e-5); only dropout differs: it draws one mask
for the shared tokens instead of one for each row.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

NAME = "packed_rows"
IGNORED = -100  # label of a token that carries no loss
CAPACITY = 2048  # tokens that a pack may always hold, also where batch_size rows alone would be fewer
Row = dict[str, list[int]]


def rows_per_pack(lengths: Sequence[int], prefix: int, batch_size: int, step: int) -> int:
    """How many rows go into one pack: all `step` rows of a process's optimizer step if they fit, else an equal share.

    A pack holds no more tokens than `batch_size` of the longest rows padded to one length would, or CAPACITY. `lengths`
    are those of the rows with their shared `prefix`.
    """
    capacity = max(batch_size * max(lengths), CAPACITY)
    longest = sorted((length - prefix for length in lengths), reverse=True)
    shares = (step // packs for packs in range(1, step + 1) if step % packs == 0)
    return next(rows for rows in shares if prefix + sum(longest[:rows]) <= capacity)


def pack(rows: Sequence[Row], prefix: int) -> dict[str, Any]:
    """One packed sequence of rows with input_ids and labels, as arguments of the model's call and of `packed_loss`.

    input_ids and position_ids (1, tokens); logits_to_keep: the positions whose next token carries loss; labels (2,
    those): the next tokens and their weights; shift_labels: one entry per counted token of the unpacked rows, by which
    Trainer counts them; pack: (prefix, tokens that follow it in each row), for the attention.
    """
    shared = rows[0]["input_ids"][:prefix]
    tokens, places = list(shared), list(range(prefix))
    kept: list[tuple[int, int, int]] = []  # (position, its next token, weight)
    for place in range(1, prefix):
        weight = sum(row["labels"][place] != IGNORED for row in rows)
        if weight:
            kept.append((place - 1, shared[place], weight))
    for row in rows:
        start = len(tokens)
        for place in range(max(prefix, 1), len(row["input_ids"])):
            if row["labels"][place] != IGNORED:
                before = start + place - prefix - 1 if place > prefix else prefix - 1
                kept.append((before, row["labels"][place], 1))
        tokens += row["input_ids"][prefix:]
        places += range(prefix, len(row["input_ids"]))
    positions, targets, weights = torch.tensor(kept, dtype=torch.long).reshape(-1, 3).T
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([places]),
        "logits_to_keep": positions,
        "labels": torch.stack([targets, weights]),
        "shift_labels": targets.repeat_interleave(weights),
        "pack": (prefix, [len(row["input_ids"]) - prefix for row in rows]),
    }


def packed_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the counted tokens of an optimizer step, of which these are the labels (2, positions)."""
    targets, weights = labels
    each = functional.cross_entropy(outputs.logits[0].float(), targets, reduction="none")
    return (each * weights).sum() / num_items_in_batch


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    pack: tuple[int, list[int]],
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer, with tensors (1, heads, tokens, dim): the prefix, then row by row."""
    prefix, counts = pack
    times = query.shape[1] // key.shape[1]  # repeated by hand: torch's own way, with a mask, is slow on a GPU
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    options = {"dropout_p": dropout, "scale": scaling}
    attend = functional.scaled_dot_product_attention
    queries, keys, values = (part.split([prefix, *counts], 2) for part in (query, key, value))
    out = [attend(queries[0], keys[0], values[0], is_causal=True, **options)] if prefix else []
    for own_query, own_key, own_value in zip(queries[1:], keys[1:], values[1:], strict=True):
        if not prefix:
            out.append(attend(own_query, own_key, own_value, is_causal=True, **options))
            continue
        count = own_query.shape[2]
        mask = torch.ones(count, prefix + count, dtype=torch.bool, device=query.device).tril_(prefix)
        both = (torch.cat(pair, 2) for pair in ((keys[0], own_key), (values[0], own_value)))
        out.append(attend(own_query, *both, attn_mask=mask, **options))
    return torch.cat(out, 2).transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)
