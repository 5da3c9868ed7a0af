"""Decoding of many prompts over one shared prefix, greedy or drawn, and the next token's probabilities.

All prompts of a stage begin alike: the same example problems, the same policy text, at least the same system turn. That
prefix is computed once per call, kept once in memory and read once per step for all rows (attention.py). What follows
it is packed without padding. Rows are taken in by length, longest first; a row that ends leaves at once and others take
the free places, so that no slot idles. The tokens are those of transformers' `generate` for each prompt alone (a test
holds it in float32).

Prompts are worked on in batches of `batch_size`, the rest with the last. Results of a finished batch are kept in a
folder, if one is given, so that a killed stage loses one batch at most; each batch starts from empty slots, so that its
bits do not depend on what was done before, nor on which of several processes did it. There are `batch_size` slots.
Fewer, by halves, where memory would not hold them: before the start as far as that can be foreseen, and again after an
out-of-memory error, which loses only the rows in work.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.lib.base.processes import count, gathered, index, is_first
from stages.lib.base.unfinished import read_part, write_part
from stages.lib.generate.repetition import is_repetitive, number_tokens
from stages.lib.model.attention import NAME, Rows, shared_prefix, use_attention
from stages.lib.model.device import free_memory, is_out_of_memory
from stages.lib.model.models import check_length
from stages.lib.prompts.chat import turn_end

PREFILL = 2048  # tokens of new rows in one pass: enough for full matrix speed, few enough to stay small in memory
REFILL = 0.25  # share of the slots that must be free before new rows are taken in
Work = Callable[[list[int], int], Iterator[tuple[int, Any]]]  # (prompts, slots) → (prompt, its result) as they come


@dataclass(frozen=True)
class Generation:
    """Text without special tokens; finish is stop (end-of-turn token), length (the limit) or repetition (it repeated
    itself and was ended); tokens counts the end-of-turn too."""

    text: str
    finish: str
    tokens: int


@dataclass(frozen=True)
class Engine:
    """What travels together: a loaded model, its tokenizer, how many rows it takes at a time, and the folder, if any,
    that keeps finished batches."""

    model: Any
    tokenizer: Any
    batch_size: int
    keep: Path | None = None


def greedy(
    engine: Engine, prompts: Sequence[str], max_new_tokens: int, label: str, end_repetition: bool = False
) -> list[Generation]:
    """Continue each rendered prompt greedily, up to its end-of-turn token or max_new_tokens, in the order given.

    With `end_repetition`, a text that repeats itself (repetition.py) is ended there. `label` stands before progress and
    errors. Raises BadInput if the model computes no number (nan) for a next token.
    """
    numbers = sorted(number_tokens(engine.tokenizer)) if end_repetition else None
    work = partial(_continue, sorted(end_tokens(engine.model, engine.tokenizer)), numbers, None)
    return _texts(engine, _each(engine, prompts, work, max_new_tokens, label), max_new_tokens)


def drawn(
    engine: Engine, prompts: Sequence[str], max_new_tokens: int, label: str, temperature: float, seeds: Sequence[str]
) -> list[Generation]:
    """Continue each rendered prompt with tokens drawn at a temperature, all else as `greedy`.

    The draws of a text are those of its seed, whatever is drawn beside it; the same prompt may stand there often, each
    time with a seed of its own.
    """
    work = partial(_continue, sorted(end_tokens(engine.model, engine.tokenizer)), None, temperature)
    return _texts(engine, _each(engine, prompts, work, max_new_tokens, label, seeds), max_new_tokens)


def _texts(engine: Engine, written: Sequence[list[int]], max_new_tokens: int) -> list[Generation]:
    tokenizer, ends = engine.tokenizer, end_tokens(engine.model, engine.tokenizer)
    out = []
    for new in written:
        stopped = new[-1] in ends
        text = tokenizer.decode(new[:-1] if stopped else new, skip_special_tokens=True)
        finish = "stop" if stopped else "length" if len(new) == max_new_tokens else "repetition"
        out.append(Generation(text, finish, len(new)))
    return out


def next_token(
    engine: Engine, prompts: Sequence[str], candidates: Sequence[int], label: str
) -> list[tuple[int, list[float]]]:
    """For each rendered prompt: the most probable next token, and the log-probabilities of `candidates`."""
    return _each(engine, prompts, partial(_score, list(candidates)), 1, label)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a turn: the one that the chat template writes there, the tokenizer's and the model's own."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return {token for token in [*own, tokenizer.eos_token_id, turn_end(tokenizer)] if token is not None}


@dataclass(frozen=True)
class Prompts:
    """What all prompts share, what follows in each, how many new tokens each may get, and where those are drawn, the
    seed of each."""

    prefix: list[int]
    rest: list[list[int]]
    limit: int
    seeds: Sequence[str] = ()


def _each(
    engine: Engine, prompts: Sequence[str], work: partial, limit: int, label: str, seeds: Sequence[str] = ()
) -> list[Any]:
    """The result of each prompt, batch by batch, with progress. Batches that `keep` holds are taken from there.

    Several processes take the batches in turn; each gets all results.
    """
    if not prompts:
        return []
    model, batch_size, keep = engine.model, engine.batch_size, engine.keep
    ids = engine.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    check_length(model, [len(row) + limit for row in ids], f"{label}: with {limit} new tokens, prompt")
    shared = shared_prefix(ids)
    asked = Prompts(ids[0][:shared], [row[shared:] for row in ids], limit, seeds)
    order = sorted(range(len(ids)), key=lambda prompt: -len(ids[prompt]))
    mine = _batches(order, batch_size)[index() :: count()]
    results: dict[int, Any] = {}
    with use_attention(model, NAME) as inner, _bar(label, sum(map(len, mine))) as bar:
        slots = _fitting(inner, asked, min(batch_size, len(ids)))
        for batch in mine:
            decides = [work.func.__name__, work.args, limit, [ids[prompt] for prompt in batch]]
            name = sha256_text(json.dumps([*decides, *([seeds[prompt] for prompt in batch] if seeds else [])]))
            kept = read_part(keep, name)
            if kept is None:
                done, slots = _batch(partial(work, inner, asked), batch, slots, label, bar)
                write_part(keep, name, {"slots": slots, "results": [done[prompt] for prompt in batch]})
            else:
                done, slots = dict(zip(batch, kept["results"], strict=True)), kept["slots"]
                bar.update(len(batch))
            results.update(done)
    results = gathered(results)
    return [results[prompt] for prompt in range(len(ids))]


def _batches(order: list[int], size: int) -> list[list[int]]:
    """Batches of `size`; the last holds the rest, too, so that none is small."""
    count = max(1, len(order) // size)
    return [order[n * size : (n + 1) * size if n + 1 < count else None] for n in range(count)]


def _batch(work: Work, batch: Sequence[int], slots: int, label: str, bar: tqdm) -> tuple[dict[int, Any], int]:
    """The results of a batch, and the slots it was left with: out of memory, the rest goes on with half of them."""
    done: dict[int, Any] = {}
    while left := [prompt for prompt in batch if prompt not in done]:
        try:
            for prompt, result in work(left, slots):
                done[prompt] = result
                bar.update(1)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if slots == 1:
                raise BadInput(f"{label}: not enough memory for one prompt at a time") from None
            slots = (slots + 1) // 2
            print(f"{label}: out of memory; going on with {slots} rows at a time", file=sys.stderr)
    return done, slots


@torch.inference_mode()
def _continue(
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
    written: dict[int, list[int]] = {}
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
            tokens = torch.tensor([[written[prompt][-1] for prompt in active]], device=model.device)
            logits = model(tokens, position_ids=rows.advance(), rows=rows, use_cache=False).logits[0]
        if temperature:
            tokens = _draw(logits, temperature, [draws[prompt].random() for prompt in active[first:]])
        else:
            tokens = _best(logits)
        for row, token in reversed(list(enumerate(tokens, first))):
            new = written.setdefault(active[row], [])
            new.append(token)
            repeated = passed_over is not None and is_repetitive(new, passed_over)
            if token in ends or len(new) == asked.limit or repeated:
                prompt = active[row]
                active[row] = active[-1]
                active.pop()
                rows.close(row)
                yield prompt, written.pop(prompt)


@torch.inference_mode()
def _score(candidates: list[int], model: Any, asked: Prompts, waiting: list[int], slots: int) -> Iterator:
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


def _fitting(model: Any, asked: Prompts, slots: int) -> int:
    """As many slots as fit into four fifths of the free memory, found by halving (so that it seldom changes)."""
    room = max(len(rest) for rest in asked.rest) + asked.limit
    row = Rows(model.config, 1, room, model.dtype, torch.device("meta"))
    free = free_memory(model.device)
    while slots > 1 and slots * row.bytes() > 0.8 * free:
        slots = (slots + 1) // 2
    return slots


def _bar(label: str, prompts: int) -> tqdm:
    return tqdm(total=prompts, desc=label, unit="prompt", disable=not (sys.stderr.isatty() and is_first()))
