"""What a model is trained on, where the untuned model has a say in it: it is asked once, and what it said is kept.

With the default parameters nothing here is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.params import Finetune
from stages.lib.train.packing import IGNORED, Row
from stages.lib.train.untuned import mask, token_losses

Found = dict[str, float | int]


def masked(model: Any, rows: Sequence[Row], settings: Finetune, keep: Path) -> tuple[list[Row], Found]:
    """The rows that finetune.mask_perplexity leaves something of, and what share of their tokens it masks.

    `model`: the untuned one, loaded for generation. Raises BadInput where it leaves nothing of any row.
    """
    losses = token_losses(model, rows, keep)
    left = mask(rows, losses, settings.mask_perplexity)
    if not left:
        raise BadInput(
            f"finetune.mask_perplexity: every token of every row is more perplexing than {settings.mask_perplexity:g} "
            "to the untuned model; set it higher"
        )
    before, after = counted(rows), counted(left)
    return left, {
        "counted_tokens": before,
        "masked_share": 1 - after / before,
        "rows_without_loss": len(rows) - len(left),
    }


def counted(rows: Sequence[Row]) -> int:
    """How many tokens carry loss."""
    return sum(label != IGNORED for row in rows for label in row["labels"][1:])
