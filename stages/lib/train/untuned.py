"""What the untuned model makes of rows before it is trained on them: the loss of every token, and what that decides.

The perplexity of one token is exp of its loss (Wu et al. 2025, arXiv:2501.14315). Rows are packed as in training, in
packs that are kept, once done, in a folder; each is named by the tokens in it, so that another run takes it from there.
"""

import json
import sys
from collections.abc import Sequence
from itertools import accumulate
from math import log
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm

from stages.lib.base.files import sha256_text
from stages.lib.base.processes import count, gathered, index, is_first
from stages.lib.base.unfinished import read_part, write_part
from stages.lib.model.attention import shared_prefix, use_attention
from stages.lib.model.head import PIECE, without_head
from stages.lib.model.models import check_length
from stages.lib.train.packing import CAPACITY, IGNORED, NAME, Row, pack

Losses = list[float]  # of each token of a row but the first, in nats


def token_losses(model: Any, rows: Sequence[Row], keep: Path | None = None) -> list[Losses]:
    """Per row the loss of its 2nd, 3rd, ... token under the model as it is, loaded for generation.

    Raises BadInput for rows that its context does not hold. Finished packs are kept in the folder `keep`.
    """
    if not rows:
        return []
    ids = [row["input_ids"] for row in rows]
    check_length(model, list(map(len, ids)), "finetune: training row")
    prefix = ids[0][: shared_prefix(ids)] if len(ids) > 1 else []
    found: dict[int, Losses] = {}
    mine = _batches([len(row) - len(prefix) for row in ids], len(prefix))[index() :: count()]
    quiet, total = not (sys.stderr.isatty() and is_first()), sum(map(len, mine))
    with use_attention(model, NAME) as inner, tqdm(desc="perplexity", total=total, unit="row", disable=quiet) as bar:
        for batch in mine:
            chosen = [ids[n] for n in batch]
            name = sha256_text(json.dumps(["token_losses", len(prefix), chosen]))
            done = read_part(keep, name)
            if done is None:
                done = _losses(inner, chosen, prefix)
                write_part(keep, name, done)
            found.update(zip(batch, done, strict=True))
            bar.update(len(batch))
    found = gathered(found)
    return [found[n] for n in range(len(ids))]


def _batches(lengths: Sequence[int], prefix: int) -> list[list[int]]:
    """Rows in order, by as many as fit behind the prefix into CAPACITY tokens, one at least."""
    room, batches = max(CAPACITY - prefix, 1), [[]]
    for n, length in enumerate(lengths):
        if batches[-1] and sum(lengths[row] for row in batches[-1]) + length > room:
            batches.append([])
        batches[-1].append(n)
    return batches


@torch.inference_mode()
def _losses(model: Any, ids: Sequence[list[int]], prefix: list[int]) -> list[Losses]:
    """The losses of one pack, whose tokens all count: those of the prefix first, then each row's own."""
    packed = pack([{"input_ids": row, "labels": row} for row in ids], prefix)
    targets = packed.pop("labels")[0].to(model.device)
    packed = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in packed.items()}
    del packed["shift_labels"]
    with without_head(model) as head:  # never all logits at once
        hidden = model(**packed, use_cache=False).logits[0]
        pieces = zip(hidden.split(PIECE), targets.split(PIECE), strict=True)
        losses = torch.cat([functional.cross_entropy(head(part).float(), of, reduction="none") for part, of in pieces])
    first = max(len(prefix) - 1, 0)
    own = [len(row) - max(len(prefix), 1) for row in ids]
    ends = list(accumulate(own, initial=first))
    shared = losses[:first].tolist()
    return [[*shared, *losses[start:end].tolist()] for start, end in zip(ends, ends[1:], strict=False)]


def mask(rows: Sequence[Row], losses: Sequence[Losses], perplexity: float) -> list[Row]:
    """The rows without loss on tokens whose perplexity is above this; rows that are left without any are left out.

    Selective Token Masking of arXiv:2501.14315, whose threshold is 2.5. There, only an answer carries loss; where a
    prompt does as well, its tokens are masked by the same rule.
    """
    masked = []
    for row, of in zip(rows, losses, strict=True):
        kept = [row["labels"][0], *(IGNORED if loss > log(perplexity) else label for loss, label in _counted(row, of))]
        if any(label != IGNORED for label in kept[1:]):
            masked.append({**row, "labels": kept})
    return masked


def perplexity(row: Row, losses: Losses) -> float:
    """Of a row's tokens that carry loss together: exp of their mean loss."""
    counted = [loss for loss, label in _counted(row, losses) if label != IGNORED]
    return float(torch.tensor(counted, dtype=torch.float64).mean().exp())


def _counted(row: Row, losses: Losses) -> list[tuple[float, int]]:
    return list(zip(losses, row["labels"][1:], strict=True))
