"""Asking a safeguard model about (prompt, response) pairs; what it is asked and how it is read is in guards.py."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.made import ENGINE, Made
from stages.lib.base.sections import Judge, Machine
from stages.lib.generate.ask import greedy, made_by, next_token
from stages.lib.generate.connect import connect
from stages.lib.generate.engine import Engine
from stages.lib.generate.server import Server
from stages.lib.judge.guards import (
    LLAMA_GUARD_TOKENS,
    QWEN3GUARD_TOKENS,
    Reading,
    guard_prompt,
    llama_guard_prompt,
    parse_llama_guard,
    parse_qwen3guard,
)
from stages.lib.model.models import load_for_generation
from stages.lib.model.provenance import how_made
from stages.lib.model.sources import find, load_tokenizer
from stages.lib.prompts.chat import SAMPLE

DTYPE = "bfloat16"
Pairs = Sequence[tuple[str, str]]


def load_guard(settings: Judge, keep: Path | None = None) -> Engine:
    """judge.model, ready to be asked; finished batches are kept in the folder `keep`."""
    source = find(settings.model or "", settings.revision)
    model = load_for_generation(source, settings.quantization, DTYPE)
    return Engine(model, load_tokenizer(source), settings.batch_size, keep)


def served_guard(settings: Judge, machine: Machine, keep: Path | None = None) -> Server:
    """judge.model as a server answers for it; its weights are not loaded here."""
    source = find(settings.model or "", settings.revision)
    return connect("judge", settings.model or "", source, load_tokenizer(source), machine, keep)


def guard_made(settings: Judge, guard: Engine | Server) -> Made:
    """How judge.model's verdicts are made."""
    tokenizer = guard.tokenizer
    asks = llama_guard_prompt if settings.protocol == "llama_guard_3" else guard_prompt
    rendered = asks(tokenizer, *(message["content"] for message in SAMPLE[:2]))
    made = how_made(
        name=settings.model or "",
        revision=settings.revision,
        quantization=settings.quantization,
        dtype=DTYPE,
        tokenizer=tokenizer,
        rendered=rendered,
        engine=ENGINE,
    )
    return made_by(guard, made)


def ask_llama_guard(guard: Engine | Server, pairs: Pairs, name: str) -> list[tuple[Reading, float | None]]:
    """One forward pass decides: the verdict is its most probable next token, the score p(unsafe) against p(safe).

    Only responses found unsafe are continued, for their categories. A most probable token that begins neither word is
    an unparsed verdict, with no score.
    """
    tokenizer = guard.tokenizer
    prompts = [llama_guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    safe, unsafe = _first_token(tokenizer, "safe"), _first_token(tokenizer, "unsafe")
    if safe == unsafe:
        raise BadInput("judge.model: its tokenizer begins 'safe' and 'unsafe' with the same token")
    scored = next_token(guard, prompts, [safe, unsafe], name)
    found = [row for row, (best, _) in enumerate(scored) if best == unsafe]
    texts = greedy(guard, [prompts[row] for row in found], LLAMA_GUARD_TOKENS, f"{name} categories")
    # the first token has decided; categories that cannot be read leave the verdict unsafe without any
    categories = {row: parse_llama_guard(text.text).categories for row, text in zip(found, texts, strict=True)}
    out: list[tuple[Reading, float | None]] = []
    for row, (best, (log_safe, log_unsafe)) in enumerate(scored):
        if best not in (safe, unsafe):
            out.append((Reading("unparsed", []), None))
            continue
        p_unsafe = 1 / (1 + math.exp(log_safe - log_unsafe))
        label = "unsafe" if best == unsafe else "safe"
        out.append((Reading(label, categories.get(row, [])), p_unsafe))
    return out


def ask_qwen3guard(guard: Engine | Server, pairs: Pairs, name: str) -> list[Reading]:
    """Generate each verdict's three lines, greedily, and read them."""
    prompts = [guard_prompt(guard.tokenizer, prompt, response) for prompt, response in pairs]
    return [parse_qwen3guard(text.text) for text in greedy(guard, prompts, QWEN3GUARD_TOKENS, name)]


def tokens_shown(tokenizer: Any, pairs: Pairs) -> int:
    """Tokens of all the guard's prompts, the policy text in each of them."""
    prompts = [guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    return sum(len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]) if prompts else 0


def _first_token(tokenizer: Any, word: str) -> int:
    return tokenizer(word, add_special_tokens=False)["input_ids"][0]
