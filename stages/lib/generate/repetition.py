"""Whether a text repeats itself. Pure: tokens in, yes or no out.

Greedy decoding of a small model often falls into a loop that it never leaves (arXiv:1904.09751), so that a response
runs into any limit. As in arXiv:1908.04319, a loop shows in runs of tokens that stand in the text already. Numbers are
left out, because the items of an endless list are numbered.
"""

from collections.abc import Collection, Sequence
from typing import Any

# Set by looking at what the untuned default model writes to the embedded hazard and harmless prompts. On other prompts,
# the 112 of guard_hazards.jsonl's validation split, they end all 35 texts that ran into 512 tokens, and 1 of 77 others.
RUN, WINDOW, SHARE = 4, 96, 0.9
EVERY = 16  # tokens between two looks


def is_repetitive(tokens: Sequence[int], numbers: Collection[int]) -> bool:
    """Whether nine tenths of the last 96 tokens end a run of four that the text already has.

    `numbers` (see number_tokens) are passed over. Only every 16th token is looked at; False for the others.
    """
    if len(tokens) % EVERY or len(tokens) < WINDOW + RUN:
        return False
    words = [token for token in tokens if token not in numbers]
    runs = list(zip(*(words[start:] for start in range(RUN)), strict=False))
    seen, again = set(runs[:-WINDOW]), 0
    for run in runs[-WINDOW:]:
        again += run in seen
        seen.add(run)
    return again >= SHARE * WINDOW


def number_tokens(tokenizer: Any) -> frozenset[int]:
    """The tokens that write a number and nothing else, but for a space before it."""
    return frozenset(token for text, token in tokenizer.get_vocab().items() if text.strip("Ġ▁ ").isdigit())
