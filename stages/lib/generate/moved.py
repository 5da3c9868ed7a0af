"""How far a tuned model has moved from the untuned one where nothing was taught: on texts that the untuned one wrote.

For each text the mean of KL(untuned || tuned) in nats over its tokens: how far apart the two models' distributions of
the next token are. No judge reads it and nobody labels it; it costs two passes over the texts.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from stages.lib.base.files import sha256_text
from stages.lib.base.processes import count, gathered, index
from stages.lib.base.unfinished import read_part, write_part
from stages.lib.model.head import PIECE, divergence, without_head

Text = tuple[list[int], list[int]]  # tokens of a prompt and of the answer to it


def divergences(tuned: Any, untuned: Any | None, texts: Sequence[Text], keep: Path | None = None) -> list[float | None]:
    """The divergence of each text, None for one without tokens.

    Without an `untuned` model it is the tuned one with its adapter switched off. Texts that are done are kept in the
    folder `keep`; several processes share them.
    """
    before = tuned if untuned is None else untuned
    off = tuned.disable_adapter if untuned is None else nullcontext
    found: dict[int, float | None] = {}
    for place in range(len(texts))[index() :: count()]:
        name = sha256_text(json.dumps(["divergence", *texts[place]]))
        value = read_part(keep, name)
        if value is None and texts[place][1]:
            value = _divergence(tuned, before, off, *texts[place])
            write_part(keep, name, value)
        found[place] = value
    found = gathered(found)
    return [found[place] for place in range(len(texts))]


@torch.inference_mode()
def _divergence(
    tuned: Any, untuned: Any, off: Callable[[], AbstractContextManager], prompt: list[int], answer: list[int]
) -> float:
    """Mean over the tokens of the answer."""
    tokens = torch.tensor([prompt + answer], device=tuned.device)
    options = {"use_cache": False, "logits_to_keep": len(answer) + 1}
    with ExitStack() as heads:
        head = heads.enter_context(without_head(tuned))
        untuned_head = head if untuned is tuned else heads.enter_context(without_head(untuned))
        after = tuned(tokens, **options).logits[0, :-1]
        with off():
            before = untuned(tokens, **options).logits[0, :-1]
        total = 0.0
        for old, new in zip(before.split(PIECE), after.split(PIECE), strict=True):
            with off():
                logits = untuned_head(old.contiguous()).float()
            total += divergence(logits, head(new.contiguous()).float()).sum().item()
    return round(max(total / len(answer), 0.0), 6)
