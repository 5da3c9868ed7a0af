"""Decoding of many prompts over one shared prefix, greedy or drawn, and the next token's probabilities.

All prompts of a stage begin alike: the same example problems, the same policy text, at least the same system turn. That
prefix is computed once per call, kept once in memory and read once per step for all rows (attention.py, decoding.py).
The tokens are those of transformers' `generate` for each prompt alone (a test holds it in float32).

Prompts are worked on in batches of `batch_size`, the rest with the last. Results of a finished batch are kept in a
folder, if one is given, so that a killed stage loses one batch at most; each batch starts from empty slots, so that its
bits do not depend on what was done before, nor on which of several processes did it. There are `batch_size` slots.
Fewer, by halves, where memory would not hold them: before the start as far as that can be foreseen, and again after an
out-of-memory error, which loses only the rows in work.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.lib.base.processes import count, gathered, index, is_first
from stages.lib.base.unfinished import read_part, write_part
from stages.lib.generate.decoding import Prompts, fitting, scored, written
from stages.lib.generate.repetition import number_tokens
from stages.lib.model.attention import NAME, shared_prefix, use_attention
from stages.lib.model.device import is_out_of_memory
from stages.lib.model.models import check_length
from stages.lib.prompts.chat import turn_end

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
    ends = sorted(end_tokens(engine.model, engine.tokenizer))
    work = partial(written, ends, sorted(number_tokens(engine.tokenizer)) if end_repetition else None, None)
    return _texts(engine.tokenizer, _each(engine, prompts, work, max_new_tokens, label), ends, max_new_tokens)


def drawn(
    engine: Engine, prompts: Sequence[str], max_new_tokens: int, label: str, temperature: float, seeds: Sequence[str]
) -> list[Generation]:
    """Continue each rendered prompt with tokens drawn at a temperature, all else as `greedy`.

    The draws of a text are those of its seed, whatever is drawn beside it; the same prompt may stand there often, each
    time with a seed of its own.
    """
    ends = sorted(end_tokens(engine.model, engine.tokenizer))
    work = partial(written, ends, None, temperature)
    return _texts(engine.tokenizer, _each(engine, prompts, work, max_new_tokens, label, seeds), ends, max_new_tokens)


def _texts(tokenizer: Any, tokens: Sequence[list[int]], ends: Sequence[int], max_new_tokens: int) -> list[Generation]:
    out = []
    for new in tokens:
        stopped = new[-1] in ends
        text = tokenizer.decode(new[:-1] if stopped else new, skip_special_tokens=True)
        finish = "stop" if stopped else "length" if len(new) == max_new_tokens else "repetition"
        out.append(Generation(text, finish, len(new)))
    return out


def next_token(
    engine: Engine, prompts: Sequence[str], candidates: Sequence[int], label: str
) -> list[tuple[int, list[float]]]:
    """For each rendered prompt: the most probable next token, and the log-probabilities of `candidates`."""
    return _each(engine, prompts, partial(scored, list(candidates)), 1, label)


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a turn: the one that the chat template writes there, the tokenizer's and the model's own."""
    return ends_of(model.generation_config.eos_token_id, tokenizer)


def ends_of(own: int | list[int] | None, tokenizer: Any) -> set[int]:
    """The same, given the model's own."""
    own = own if isinstance(own, list) else [own]
    return {token for token in [*own, tokenizer.eos_token_id, turn_end(tokenizer)] if token is not None}


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
    with use_attention(model, NAME) as inner, progress(label, sum(map(len, mine))) as bar:
        slots = fitting(inner, asked, min(batch_size, len(ids)))
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


def progress(label: str, prompts: int) -> tqdm:
    """A bar that counts prompts, where somebody sees it."""
    return tqdm(total=prompts, desc=label, unit="prompt", disable=not (sys.stderr.isatty() and is_first()))
