"""Training rows packed behind one copy of the tokens they all begin with: one pass for a whole optimizer step.

A pack is one sequence: the shared prefix (the example problems), then what follows it in each row, without padding.
Position ids restart after the prefix, and a row attends to the prefix and to itself only, so every token gets the
hidden state it would have in its own row. A prefix token that carries loss counts once for each row. Loss and gradients
are therefore those of the unpacked rows (a test holds it in float32 to 1e-5); only dropout differs: it draws one mask
for the shared tokens instead of one for each row.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from stages.lib.model.attention import attend

NAME = "packed_rows"
IGNORED = -100  # label of a token that carries no loss
PIECE = 128  # positions whose logits are in memory at a time: 80 MB of them in float32 with 151,936 words
SHORT = (
    2**17
)  # queries times keys of a row up to which torch's own attention is the slower (`python -m bench.attention`)
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
    """One packed sequence of rows with input_ids and labels, as arguments of the model's call and of the loss.

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


@contextlib.contextmanager
def loss_in_pieces(model: Any, bf16: bool) -> Iterator[Callable[..., torch.Tensor]]:
    """For the time being, the model's call returns hidden states in place of logits; yields the loss over them.

    With `bf16` the output layer runs under autocast, as accelerate has the rest of the model do.

    With 151,936 words, the logits of 2,048 tokens and their gradients are 2.5 GB in float32. The loss therefore goes
    through the output layer PIECE positions at a time and keeps gradients, not logits (as Liger's fused cross-entropy
    does, arXiv:2410.10989). They are those of all logits at once (a test holds it in float32 to 1e-5).
    """
    head = model.get_output_embeddings()
    whole = head.forward
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
    trained = [weight for weight in head.parameters() if weight.requires_grad]

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        return _LossInPieces.apply(half(whole), outputs.logits[0], labels, num_items_in_batch, *trained)

    head.forward = lambda hidden: hidden
    try:
        yield loss
    finally:
        head.forward = whole


class _LossInPieces(torch.autograd.Function):
    """Mean cross-entropy of hidden states (positions, size) through the output layer; gradients are made on the way."""

    @staticmethod
    def forward(
        context: Any,
        head: Callable[[torch.Tensor], torch.Tensor],
        hidden: torch.Tensor,
        labels: torch.Tensor,
        count: torch.Tensor,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        total, inside = torch.zeros((), device=hidden.device), []
        outside = [torch.zeros_like(weight) for weight in trained]
        pieces = (part.split(PIECE) for part in (hidden, *labels))
        for states, targets, weights in zip(*pieces, strict=True):
            with torch.enable_grad():
                states = states.detach().requires_grad_()
                each = functional.cross_entropy(head(states).float(), targets, reduction="none")
                loss = (each * weights).sum() / count
                gradients = torch.autograd.grad(loss, [states, *trained])
            total += loss.detach()
            inside.append(gradients[0])
            for sum_, gradient in zip(outside, gradients[1:], strict=True):
                sum_ += gradient
        context.save_for_backward(torch.cat(inside), *outside)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inside, *outside = (gradient * each for each in context.saved_tensors)
        return None, inside, None, None, *outside


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

    def answer(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if _is_slow(query, key, dropout):
            return _AttendIn16Bits.apply(query, key, value, scaling)
        return _attend(query, key, value, dropout_p=dropout, scale=scaling)

    queries, keys, values = (part.split([prefix, *counts], 2) for part in (query, key, value))
    out = [answer(queries[0], keys[0], values[0])] if prefix else []
    for own_query, own_key, own_value in zip(queries[1:], keys[1:], values[1:], strict=True):
        both = (torch.cat(pair, 2) if prefix else pair[1] for pair in ((keys[0], own_key), (values[0], own_value)))
        out.append(answer(own_query, *both))
    return torch.cat(out, 2).transpose(1, 2), None


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
    """The last queries' attention, each to the keys up to its own: torch's own way."""
    count, length = query.shape[2], key.shape[2]
    times = query.shape[1] // key.shape[1]  # repeated by hand: torch's own way, with a mask, is slow on a GPU
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    whole = functional.scaled_dot_product_attention
    if count == length:
        return whole(query, key, value, is_causal=True, **options)
    return whole(query, key, value, attn_mask=~_later(count, length, query.device), **options)


def _later(count: int, length: int, device: torch.device) -> torch.Tensor:
    """For each of the last `count` of `length` tokens, which tokens come after it."""
    return torch.ones(count, length, dtype=torch.bool, device=device).triu_(length - count + 1)


def _is_slow(query: torch.Tensor, key: torch.Tensor, dropout: float) -> bool:
    """Whether torch's own way is slow: its backward pass in bfloat16 on a CPU is, of short rows."""
    short = query.shape[2] * key.shape[2] <= SHORT
    return (
        short and not dropout and query.requires_grad and query.device.type == "cpu" and query.dtype == torch.bfloat16
    )


class _AttendIn16Bits(torch.autograd.Function):
    """`_attend` by the same kernel, with gradients that are matrix products.

    They are FlashAttention's (arXiv:2205.14135, appendix B.2), of all keys at once. Scores are computed in float32:
    Qwen2's are so large that 16 bits would spoil the weights made from them. Query heads that share their keys stand
    one below the other, so that no key is copied.
    """

    @staticmethod
    def forward(
        context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        groups = key.shape[1]
        hidden = _later(query.shape[2], key.shape[2], query.device).repeat(query.shape[1] // groups, 1)
        mask = torch.zeros(hidden.shape, dtype=query.dtype).masked_fill_(hidden, -torch.inf)
        stacked = query.reshape(1, groups, -1, query.shape[3])
        out, total = attend(stacked, key, value, scale, mask=mask)
        context.save_for_backward(stacked, key, value, out, total, hidden)
        context.scale = scale
        return out.reshape(query.shape)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, total, hidden = context.saved_tensors
        kind, back = query.dtype, gradient.reshape(query.shape)
        scores = (query.float() * context.scale) @ key.float().transpose(2, 3)
        weights = scores.sub_(total[..., None]).exp_().masked_fill_(hidden, 0.0)
        mean = (back.float() * out.float()).sum(-1, keepdim=True)
        inner = ((back @ value.transpose(2, 3)).float() - mean).mul_(weights).mul_(context.scale).to(kind)
        of_query = (inner @ key).reshape(gradient.shape)
        return of_query, inner.transpose(2, 3) @ query, weights.to(kind).transpose(2, 3) @ back, None


AttentionInterface.register(NAME, packed_attention)
