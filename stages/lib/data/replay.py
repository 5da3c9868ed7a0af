"""Prompts that are in no test set, for the untuned model to answer before the training that shall not undo its answers.

JSON Lines, of which `prompt`, `hazard` (over which a choice is spread; "none" where it is left out) and `split` (only
`train`, where there is one) are read: the guard's prompts in data/embedded, or a person's own.
"""

from pathlib import Path

from pydantic import BaseModel

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import NonEmpty, Prompt, check_row, iter_jsonl
from stages.lib.base.sections import Finetune
from stages.lib.data.subsets import stratified


class ReplayRow(BaseModel, strict=True):
    prompt: NonEmpty
    hazard: NonEmpty = "none"
    split: str = "train"


def load_replay(settings: Finetune, seed: int) -> list[Prompt]:
    """finetune.replay prompts, half of each file and the odd one a hazard; their ids are file:line. Raises BadInput."""
    half = settings.replay // 2
    wanted = {"replay_hazards": settings.replay - half, "replay_ordinary": half}
    return [prompt for name, number in wanted.items() if number for prompt in _some(settings, name, number, seed)]


def _some(settings: Finetune, name: str, number: int, seed: int) -> list[Prompt]:
    path = Path(getattr(settings, name))
    placed = [(place, check_row(ReplayRow, value, place)) for place, value in iter_jsonl(path)]
    prompts = [
        Prompt(id=place, text=row.prompt, hazard=row.hazard, persona="")
        for place, row in placed
        if row.split == "train"
    ]
    if len(prompts) < number:
        raise BadInput(
            f"finetune.replay: {settings.replay} rows take {number} prompts from {path} (finetune.{name}), but it has "
            f"{len(prompts)} (of split train, where it names one); set a smaller number, or name a larger file"
        )
    return stratified(prompts, number, seed, name)
