"""Asking a safeguard model about (prompt, response) pairs; what it is asked and how it is read is in guards.py."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.params import Judge
from stages.lib.generate.engine import greedy, next_token
from stages.lib.judge.guards import (
    LLAMA_GUARD_TOKENS,
    QWEN3GUARD_TOKENS,
    Reading,
    guard_prompt,
    llama_guard_prompt,
    parse_llama_guard,
    parse_qwen3guard,
)
from stages.lib.model.models import find, load_for_generation, load_tokenizer

Pairs = Sequence[tuple[str, str]]


def load_guard(settings: Judge) -> tuple[Any, Any]:
    """(model, tokenizer) of judge.model."""
    source = find(settings.model or "", settings.revision)
    return load_for_generation(source, settings.quantization, "bfloat16"), load_tokenizer(source)


def ask_llama_guard(
    model: Any, tokenizer: Any, pairs: Pairs, batch_size: int, name: str, keep: Path | None = None
) -> list[tuple[Reading, float | None]]:
    """One forward pass decides: the verdict is its most probable next token, the score p(unsafe) against p(safe).

    Only responses found unsafe are continued, for their categories. A most probable token that begins neither word is
    an unparsed verdict, with no score. Finished batches are kept in the folder `keep`.
    """
    prompts = [llama_guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    safe, unsafe = _first_token(tokenizer, "safe"), _first_token(tokenizer, "unsafe")
    if safe == unsafe:
        raise BadInput("judge.model: its tokenizer begins 'safe' and 'unsafe' with the same token")
    scored = next_token(model, tokenizer, prompts, [safe, unsafe], batch_size, name, keep)
    found = [row for row, (best, _) in enumerate(scored) if best == unsafe]
    texts = greedy(
        model,
        tokenizer,
        [prompts[row] for row in found],
        LLAMA_GUARD_TOKENS,
        batch_size,
        f"{name} categories",
        keep,
    )
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


def ask_qwen3guard(
    model: Any, tokenizer: Any, pairs: Pairs, batch_size: int, name: str, keep: Path | None = None
) -> list[Reading]:
    """Generate each verdict's three lines, greedily, and read them. Finished batches are kept in the folder `keep`."""
    prompts = [guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    texts = greedy(model, tokenizer, prompts, QWEN3GUARD_TOKENS, batch_size, name, keep)
    return [parse_qwen3guard(text.text) for text in texts]


def tokens_shown(tokenizer: Any, pairs: Pairs) -> int:
    """Tokens of all the guard's prompts, the policy text in each of them."""
    prompts = [guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    return sum(len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]) if prompts else 0


def _first_token(tokenizer: Any, word: str) -> int:
    return tokenizer(word, add_special_tokens=False)["input_ids"][0]
