"""The passes of decoding: rows behind one shared prefix are taken in, continued or scored, and leave as they end.

For engine.py, which asks in batches and keeps them. What follows the prefix in a row is packed without padding. Rows
are taken in longest first; a row that ends leaves at once and others take the free places, so that no slot idles.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stages.lib.base.errors import BadInput
from stages.lib.generate.repetition import is_repetitive
from stages.lib.model.attention import Rows
from stages.lib.model.device import free_memory

PREFILL = 2048  # tokens of new rows in one pass: enough for full matrix speed, few enough to stay small in memory
REFILL = 0.25  # share of the slots that must be free before new rows are taken in


@dataclass(frozen=True)
class Prompts:
    """What all prompts share, what follows in each, how many new tokens each may get, and where those are drawn, the
    seed of each."""

    prefix: list[int]
    rest: list[list[int]]
    limit: int
    seeds: Sequence[str] = ()


@torch.inference_mode()
def written(
    ends: list[int],
    numbers: list[int] | None,
    temperature: float | None,
    model: Any,
    asked: Prompts,
    waiting: list[int],
    slots: int,
) -> Iterator:
    """Tokens of each waiting prompt, ended by one of `ends`, by the limit or, given `numbers`, by repetition; the most
    probable ones or, given a temperature, drawn ones."""
    passed_over = None if numbers is None else frozenset(numbers)
    rows = _rows(model, asked, slots)
    active: list[int] = []  # the prompt in each row
    texts: dict[int, list[int]] = {}
    draws = {prompt: random.Random(asked.seeds[prompt]) for prompt in waiting} if temperature else {}
    filling = False
    while waiting or active:
        free = slots - len(active)  # once new rows are taken in, they are until no slot is free
        filling = bool(waiting and free) and (filling or free >= min(len(waiting), REFILL * slots))
        if filling:
            fresh = _take(waiting, asked, free)
            first, active = len(active), active + fresh
            logits = _open(model, asked, rows, fresh)
        else:
            first = 0
            tokens = torch.tensor([[texts[prompt][-1] for prompt in active]], device=model.device)
            logits = model(tokens, position_ids=rows.advance(), rows=rows, use_cache=False).logits[0]
        if temperature:
            tokens = _draw(logits, temperature, [draws[prompt].random() for prompt in active[first:]])
        else:
            tokens = _best(logits)
        for row, token in reversed(list(enumerate(tokens, first))):
            new = texts.setdefault(active[row], [])
            new.append(token)
            repeated = passed_over is not None and is_repetitive(new, passed_over)
            if token in ends or len(new) == asked.limit or repeated:
                prompt = active[row]
                active[row] = active[-1]
                active.pop()
                rows.close(row)
                yield prompt, texts.pop(prompt)


@torch.inference_mode()
def scored(candidates: list[int], model: Any, asked: Prompts, waiting: list[int], slots: int) -> Iterator:
    """(most probable next token, log-probabilities of the candidates) of each waiting prompt."""
    rows = _rows(model, asked, slots)
    while waiting:
        fresh = _take(waiting, asked, slots)
        scores = torch.log_softmax(_open(model, asked, rows, fresh).float(), -1)
        rows.lengths.clear()
        yield from zip(fresh, zip(_best(scores), scores[:, candidates].tolist(), strict=True), strict=True)


def _best(scores: torch.Tensor) -> list[int]:
    """The most probable token of each row. Raises BadInput where there is none, because the model computed nan."""
    best = scores.max(-1)
    if best.values.isnan().any():
        raise BadInput("the model computes nan instead of a next token: its weights are broken, or its dtype too small")
    return best.indices.tolist()


def _draw(logits: torch.Tensor, temperature: float, numbers: Sequence[float]) -> list[int]:
    """For each row of logits the token at which its number, drawn evenly from 0 to 1, falls (BadInput for nan)."""
    _best(logits)
    below = (logits.float() / temperature).softmax(-1).double().cumsum(-1)
    points = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None] * below[:, -1:]
    return torch.searchsorted(below, points, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0].tolist()


def _rows(model: Any, asked: Prompts, slots: int) -> Rows:
    """Empty slots behind the prefix, which is computed here."""
    room = max(len(rest) for rest in asked.rest) + asked.limit
    rows = Rows(model.config, slots, room, model.dtype, model.device)
    if asked.prefix:
        tokens = torch.tensor([asked.prefix], device=model.device)
        model(tokens, position_ids=rows.prefix_pass(len(asked.prefix)), rows=rows, use_cache=False, logits_to_keep=1)
    return rows


def _take(waiting: list[int], asked: Prompts, free: int) -> list[int]:
    """Remove from `waiting` and return the next prompts for one pass: at most `free`, at most PREFILL tokens.

    Counted as if all were as long as the first, the longest, because to itself a row attends in that width.
    """
    count = max(1, min(free, PREFILL // len(asked.rest[waiting[0]])))
    taken, waiting[:] = waiting[:count], waiting[count:]
    return taken


def _open(model: Any, asked: Prompts, rows: Rows, prompts: list[int]) -> torch.Tensor:
    """The first pass of new rows; returns the logits after each one's last token, (rows, vocabulary)."""
    parts = [asked.rest[prompt] for prompt in prompts]
    positions = rows.open([len(part) for part in parts])
    tokens = torch.tensor([[token for part in parts for token in part]], device=model.device)
    ends = torch.tensor([len(part) for part in parts], device=model.device).cumsum(0) - 1
    return model(tokens, position_ids=positions, rows=rows, use_cache=False, logits_to_keep=ends).logits[0]


def fitting(model: Any, asked: Prompts, slots: int) -> int:
    """As many slots as fit into four fifths of the free memory, found by halving (so that it seldom changes)."""
    room = max(len(rest) for rest in asked.rest) + asked.limit
    row = Rows(model.config, 1, room, model.dtype, torch.device("meta"))
    free = free_memory(model.device)
    while slots > 1 and slots * row.bytes() > 0.8 * free:
        slots = (slots + 1) // 2
    return slots
