"""Attention of many rows to one shared prefix, for decoding: the prefix is read once for the whole batch.

The model runs on packed tokens: one "batch" entry holds the new tokens of all rows one after another, without padding.
Its linear layers do not care which row a token belongs to; attention does, and is given to transformers as its own
implementation (`AttentionInterface`), which finds the rows in the keyword argument `rows` of the model's call.

Every query is answered twice: against the prefix, in one matrix product for all rows, and against its own row. The two
softmax averages are merged exactly by their log-sum-exps l: out = (e^l1 out1 + e^l2 out2) / (e^l1 + e^l2) (as in
FlashAttention, arXiv:2205.14135, and Hydragen, arXiv:2402.05099).
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from stages.lib.base.errors import BadInput

NAME = "shared_prefix"
BLOCK = 32  # rows that attend to themselves in one call on a CPU, padded to the longest among them


def shared_prefix(ids: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, leaving at least one of each prompt."""
    first, last = min(ids), max(ids)  # in the order of lists: what these two share, all share
    most = min(len(row) for row in ids) - 1
    return next((n for n in range(most) if first[n] != last[n]), most)


@contextlib.contextmanager
def use_attention(model: Any, name: str) -> Iterator[Any]:
    """The model itself (under peft's wrapper; its adapter stays on) with another attention for the time being.

    Raises BadInput for a model whose attention is more than that (windows, capped scores) or cannot be replaced.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = inner.config.model_type
    layers = getattr(inner.config, "layer_types", None)
    if layers is None and getattr(inner.config, "sliding_window", None):
        layers = ["sliding_attention"]
    if layers and set(layers) != {"full_attention"}:
        raise BadInput(f"{kind}: layers of kind {', '.join(sorted(set(layers)))}; only full attention is known")
    if getattr(inner.config, "attn_logit_softcapping", None):
        raise BadInput(f"{kind}: its attention scores are capped, which is not known here")
    before = inner.config._attn_implementation
    inner.set_attn_implementation(name)
    if inner.config._attn_implementation != name:  # transformers only logs it
        raise BadInput(f"{kind}: its attention cannot be replaced; Llama's and Qwen's can, among others")
    try:
        yield inner
    finally:
        inner.set_attn_implementation(before)


class Rows:
    """Keys and values of the shared prefix (once) and of the active rows (what follows the prefix in each).

    Active rows are the first `len(self.lengths)` of `slots`. One forward pass is prepared by `prefix_pass`, `open` or
    `advance`, which also give its position_ids; `close` removes a row by moving the last one into its place.
    """

    def __init__(self, config: Any, slots: int, room: int, dtype: torch.dtype, device: torch.device) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, slots, config.num_key_value_heads, room, head_dim)
        # zeros: what a mask hides is multiplied by zero, and must not be infinite
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.prefix: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.prefix_length = 0
        self.lengths: list[int] = []
        self.device = device

    def bytes(self) -> int:
        """Memory of all slots."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def prefix_pass(self, tokens: int) -> torch.Tensor:
        """Prepare the pass over the prefix itself: (1, tokens) position_ids."""
        self.prefix, self.prefix_length = [], tokens
        self.step = "prefix"
        return torch.arange(tokens, device=self.device)[None]

    def open(self, counts: Sequence[int]) -> torch.Tensor:
        """Prepare the first pass of new rows with `counts` tokens each: (1, sum of counts) position_ids."""
        first = len(self.lengths)
        self.step, self.widest, self.opened = "open", max(counts), len(counts)
        rows = torch.tensor([row for row, count in enumerate(counts) for _ in range(count)], device=self.device)
        self.place = torch.cat([torch.arange(count, device=self.device) for count in counts])
        self.row, self.new_row = first + rows, rows
        self.lengths += counts
        return self.prefix_length + self.place[None]

    def advance(self) -> torch.Tensor:
        """Prepare a pass with one more token for every active row: (1, rows) position_ids."""
        self.step, widest = "advance", max(self.lengths) + 1
        size = BLOCK if self.device.type == "cpu" else len(self.lengths)  # on a GPU, more calls would cost more
        self.blocks = [
            (slice(first, first + len(block)), max(block) + 1)
            for first in range(0, len(self.lengths), size)
            for block in [self.lengths[first : first + size]]
        ]
        self.row = torch.arange(len(self.lengths), device=self.device)
        self.place = torch.tensor(self.lengths, device=self.device)
        hidden = torch.arange(widest, device=self.device) > self.place[:, None]
        self.mask = torch.zeros_like(hidden, dtype=self.keys.dtype).masked_fill_(hidden, float("-inf"))[:, None, None]
        self.lengths = [length + 1 for length in self.lengths]
        return self.prefix_length + self.place[None]

    def close(self, row: int) -> None:
        """Forget an active row; the last active row takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            self.keys[:, row], self.values[:, row] = self.keys[:, last], self.values[:, last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention and its log-sum-exp: (rows, heads, queries, dim) and, in float32, (rows, heads, queries).

    On a CPU by torch's flash kernel, the one behind scaled_dot_product_attention, which does not return the second.
    """
    if query.device.type == "cpu":
        flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return flash(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    return attend_plainly(query, key, value, scale, causal, mask)


def attend_plainly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, written out, for every other device.

    Scores are computed in float32: Qwen2's are so large that 16 bits spoil its answers (transformers, PR 33317).
    """
    scores = torch.matmul(query.float(), key.float().transpose(2, 3)) * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu_(1)
        scores = scores.masked_fill_(later, float("-inf"))
    if mask is not None:
        scores += mask
    total = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - total[..., None]).to(value.dtype)
    return torch.matmul(weights, value), total


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float,
    rows: Rows,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query (1, heads, tokens, dim), key and value with their own heads."""
    layer = module.layer_idx
    if rows.step == "prefix":
        rows.prefix.append((key.contiguous(), value.contiguous()))
        out = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        return out.transpose(1, 2), None
    keys, values = rows.keys[layer], rows.values[layer]
    keys[rows.row, :, rows.place] = key[0].transpose(0, 1)
    values[rows.row, :, rows.place] = value[0].transpose(0, 1)
    own = _own_causal if rows.step == "open" else _own_next
    out, total = own(query, keys, values, scaling, rows)  # (tokens, heads, dim), (tokens, heads)
    if rows.prefix_length:
        before, before_total = _prefix(query, *rows.prefix[layer], scaling)
        out = torch.lerp(out.float(), before.float(), torch.sigmoid(before_total - total)[..., None]).to(query.dtype)
    return out[None], None


def _prefix(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> tuple:
    """All tokens to the prefix: the query heads of one key head become more queries of one matrix product."""
    _, heads, tokens, dim = query.shape
    groups = key.shape[1]
    out, total = attend(query.reshape(1, groups, -1, dim), key, value, scale)
    return out.reshape(heads, tokens, dim).transpose(0, 1), total.reshape(heads, tokens).t()


def _own_causal(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, rows: Rows) -> tuple:
    """Each new row to itself: padded on the right to the widest, where causality hides the padding."""
    _, heads, _, dim = query.shape
    first = len(rows.lengths) - rows.opened
    part = (slice(first, first + rows.opened), slice(None), slice(rows.widest))
    times = heads // keys.shape[1]
    key, value = (part_of.repeat_interleave(times, 1) for part_of in (keys[part], values[part]))
    padded = query.new_zeros(rows.opened, rows.widest, heads, dim)
    padded[rows.new_row, rows.place] = query[0].transpose(0, 1)
    out, total = attend(padded.transpose(1, 2), key, value, scale, causal=True)
    return out.transpose(1, 2)[rows.new_row, rows.place], total.transpose(1, 2)[rows.new_row, rows.place]


def _own_next(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, rows: Rows) -> tuple:
    """One token of each active row to that row, up to and with itself; blocks of rows, each as wide as its longest."""
    _, heads, tokens, dim = query.shape
    groups = keys.shape[1]
    grouped = query[0].transpose(0, 1).reshape(tokens, groups, heads // groups, dim)
    parts = []
    for block, widest in rows.blocks:
        mask = rows.mask[block, ..., :widest].expand(-1, -1, heads // groups, -1)
        key, value = keys[block, :, :widest], values[block, :, :widest]
        parts.append(attend(grouped[block], key, value, scale, mask=mask))
    out, total = (torch.cat(part) for part in zip(*parts, strict=True))
    return out.reshape(tokens, heads, dim), total.reshape(tokens, heads)


AttentionInterface.register(NAME, shared_prefix_attention)
