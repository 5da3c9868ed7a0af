"""Training rows packed behind one copy of the tokens they all begin with: one pass for a whole optimizer step.

A pack is one sequence: the shared prefix (the example problems), then what follows it in each row, without padding.
Position ids restart after the prefix, and a row attends to the prefix and to itself only, so every token gets the
hidden state it would have in its own row. A row of another kind (a replayed answer) shares less: it attends to as much
of the prefix as it begins with. A prefix token that carries loss counts once for each row that has it. Loss and
gradients are therefore those of the unpacked rows (a test holds it in float32 to 1e-5); only dropout differs: it draws
one mask for the shared tokens instead of one for each row.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from stages.lib.model.attention import attend
from stages.lib.model.head import PIECE, divergence, without_head

NAME = "packed_rows"
IGNORED = -100  # label of a token that carries no loss
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


def pack(rows: Sequence[Row], prefix: Sequence[int]) -> dict[str, Any]:
    """One packed sequence of rows with input_ids and labels, as arguments of the model's call and of the loss.

    `prefix`: tokens with which most rows begin; of those that none of these rows begins with, nothing is computed.
    input_ids and position_ids (1, tokens); logits_to_keep: the positions whose next token carries loss; labels (2,
    those): the next tokens and their weights; shift_labels: one entry per counted token of the unpacked rows, by which
    Trainer counts them; pack: (length of the prefix, for each row how much of that is its own and how many tokens
    follow), for the attention.
    """
    begun = [begins_with(row, prefix) for row in rows]
    shared = list(prefix[: max(begun)])
    tokens, places = list(shared), list(range(len(shared)))
    kept: list[tuple[int, int, int]] = []  # (position, its next token, weight)
    for place in range(1, len(shared)):
        weight = sum(place < n and row["labels"][place] != IGNORED for row, n in zip(rows, begun, strict=True))
        if weight:
            kept.append((place - 1, shared[place], weight))
    for row, n in zip(rows, begun, strict=True):
        start = len(tokens)
        for place in range(max(n, 1), len(row["input_ids"])):
            if row["labels"][place] != IGNORED:
                before = start + place - n - 1 if place > n else n - 1
                kept.append((before, row["labels"][place], 1))
        tokens += row["input_ids"][n:]
        places += range(n, len(row["input_ids"]))
    positions, targets, weights = torch.tensor(kept, dtype=torch.long).reshape(-1, 3).T
    return {
        "input_ids": torch.tensor([tokens]),
        "position_ids": torch.tensor([places]),
        "logits_to_keep": positions,
        "labels": torch.stack([targets, weights]),
        "shift_labels": targets.repeat_interleave(weights),
        "pack": (len(shared), [(n, len(row["input_ids"]) - n) for row, n in zip(rows, begun, strict=True)]),
    }


def begins_with(row: Row, prefix: Sequence[int]) -> int:
    """How many tokens of the prefix a row begins with, leaving at least one of its own."""
    most = min(len(prefix), len(row["input_ids"]) - 1)
    return next((n for n in range(most) if row["input_ids"][n] != prefix[n]), most)


@contextlib.contextmanager
def loss_in_pieces(model: Any, bf16: bool, kl: float = 0.0) -> Iterator[Callable[..., torch.Tensor]]:
    """For the time being, the model's call returns hidden states in place of logits; yields the loss over them.

    With `bf16` the output layer runs under autocast, as accelerate has the rest of the model do. With `kl`, the call
    also returns the hidden states of the untuned model, which is this one with its adapter off, and the loss has so
    much of the mean divergence KL(untuned || tuned) of the next token's distributions added, over the same tokens (as
    Learning without Forgetting keeps an old model's outputs, arXiv:1606.09282).

    With 151,936 words, the logits of 2,048 tokens and their gradients are 2.5 GB in float32. The loss therefore goes
    through the output layer PIECE positions at a time and keeps gradients, not logits (as Liger's fused cross-entropy
    does, arXiv:2410.10989). They are those of all logits at once (a test holds it in float32 to 1e-5).
    """
    half = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
    trained = [weight for weight in model.get_output_embeddings().parameters() if weight.requires_grad]

    def untuned_head(whole: Callable[..., torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
        with model.disable_adapter() if trained else contextlib.nullcontext(), torch.no_grad():
            return half(whole)(hidden)

    def add_untuned(module: Any, _: tuple, inputs: dict[str, Any], outputs: Any) -> None:
        with model.disable_adapter(), torch.no_grad():
            outputs["untuned"] = module.forward(**inputs).logits

    hook = model.register_forward_hook(add_untuned, with_kwargs=True) if kl else contextlib.nullcontext()
    with without_head(model) as whole, hook:

        def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
            untuned = (kl, partial(untuned_head, whole), outputs.untuned[0]) if kl else None
            return _LossInPieces.apply(half(whole), outputs.logits[0], labels, num_items_in_batch, untuned, *trained)

        yield loss


class _LossInPieces(torch.autograd.Function):
    """Mean cross-entropy of hidden states (positions, size) through the output layer; gradients are made on the way.

    `untuned`: weight of the divergence, output layer and hidden states of the model that it is from, if it counts.
    """

    @staticmethod
    def forward(
        context: Any,
        head: Callable[[torch.Tensor], torch.Tensor],
        hidden: torch.Tensor,
        labels: torch.Tensor,
        count: torch.Tensor,
        untuned: tuple[float, Callable[[torch.Tensor], torch.Tensor], torch.Tensor] | None,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        total, inside = torch.zeros((), device=hidden.device), []
        outside = [torch.zeros_like(weight) for weight in trained]
        kl, untuned_head, before = untuned or (0.0, None, hidden)
        pieces = (part.split(PIECE) for part in (hidden, before, *labels))
        for states, states_before, targets, weights in zip(*pieces, strict=True):
            with torch.enable_grad():
                states = states.detach().requires_grad_()
                logits = head(states).float()
                each = functional.cross_entropy(logits, targets, reduction="none")
                if kl:
                    each = each + kl * divergence(untuned_head(states_before).float(), logits)
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
        return None, inside, None, None, None, *outside


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    pack: tuple[int, list[tuple[int, int]]],
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer, with tensors (1, heads, tokens, dim): the prefix, then row by row."""
    prefix, rows = pack

    def answer(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if _is_slow(query, key, dropout):
            return _AttendIn16Bits.apply(query, key, value, scaling)
        return _attend(query, key, value, dropout_p=dropout, scale=scaling)

    parts = [prefix, *(count for _, count in rows)]
    queries, keys, values = (part.split(parts, 2) for part in (query, key, value))
    out = [answer(queries[0], keys[0], values[0])] if prefix else []
    for (begun, _), own_query, own_key, own_value in zip(rows, queries[1:], keys[1:], values[1:], strict=True):
        pairs = ((keys[0][:, :, :begun], own_key), (values[0][:, :, :begun], own_value))
        out.append(answer(own_query, *(torch.cat(pair, 2) if begun else pair[1] for pair in pairs)))
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
