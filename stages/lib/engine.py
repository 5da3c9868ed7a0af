"""Batched greedy decoding, and the next token's probabilities, through transformers' own `generate` and forward pass.

Prompts are sorted by length (longest first, so that a batch too large for memory fails at once), padded on the left,
and given back in their own order.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from stages.lib.models import check_length


@dataclass(frozen=True)
class Generation:
    """Text without special tokens; finish is stop (end-of-turn token) or length; tokens counts the end-of-turn too."""

    text: str
    finish: str
    tokens: int


def greedy(
    model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, batch_size: int, label: str
) -> list[Generation]:
    """Continue each rendered prompt greedily, up to its end-of-turn token or max_new_tokens, in the order given."""
    ends = end_tokens(model, tokenizer)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    out: dict[int, Generation] = {}
    for rows, batch in _batches(model, tokenizer, prompts, batch_size, label, max_new_tokens):
        with torch.inference_mode():
            tokens = model.generate(**batch, generation_config=settings)[:, batch["input_ids"].shape[1] :]
        for row, new in zip(rows, tokens.tolist(), strict=True):
            stop = next((n for n, token in enumerate(new) if token in ends), None)
            kept = new if stop is None else new[:stop]
            finish, count = ("length", len(new)) if stop is None else ("stop", stop + 1)
            out[row] = Generation(tokenizer.decode(kept, skip_special_tokens=True), finish, count)
    return [out[row] for row in range(len(prompts))]


def next_token(
    model: Any, tokenizer: Any, prompts: Sequence[str], candidates: Sequence[int], batch_size: int, label: str
) -> list[tuple[int, list[float]]]:
    """For each rendered prompt: the most probable next token, and the log-probabilities of `candidates`."""
    out: dict[int, tuple[int, list[float]]] = {}
    for rows, batch in _batches(model, tokenizer, prompts, batch_size, label, 1):
        with torch.inference_mode():
            logits = model(**batch, logits_to_keep=1).logits[:, -1].float()
        scores = torch.log_softmax(logits, -1)
        for row, best, values in zip(
            rows, scores.argmax(-1).tolist(), scores[:, list(candidates)].tolist(), strict=True
        ):
            out[row] = (best, values)
    return [out[row] for row in range(len(prompts))]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a turn: the tokenizer's and the model's own."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return {token for token in [*own, tokenizer.eos_token_id] if token is not None}


def _batches(
    model: Any, tokenizer: Any, prompts: Sequence[str], size: int, label: str, new: int
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if prompts else []
    check_length(model, [len(row) + new for row in ids], f"{label}: with {new} new tokens, prompt")
    order = sorted(range(len(prompts)), key=lambda row: -len(ids[row]))
    with tqdm(total=len(prompts), desc=label, unit="prompt", disable=not sys.stderr.isatty()) as bar:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, padding_side="left", return_tensors="pt")
            yield rows, {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            bar.update(len(rows))
