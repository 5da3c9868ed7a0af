"""Which rows of the data a run uses: for training, as examples, as test questions and as prompts. Pure, by a seed."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem, Prompt
from stages.lib.data.overlaps import asked


def choose_training(problems: Sequence[Problem], rows: str | int, shots: int, seed: int) -> tuple[list, list]:
    """(training rows, example problems); no training row ever asks what an example asks.

    The examples are drawn first, from as many of the shortest rows as leave a third of all beside them: the paper's
    code draws them from its training rows, and trains on the third with the fewest characters in question and answer
    (shortest_third: 2,491 of GSM8K's 7,473; shortest_third/256: the first 256 of those). Training rows come in file
    order. Raises BadInput if there are too few.
    """
    if len(problems) <= shots:
        raise BadInput(
            f"train: {len(problems)} rows are too few: {shots} are set aside as example problems; give more than those"
        )
    shortest = sorted(problems, key=lambda p: len(p.question) + len(p.answer))[: len(problems) // 3 + shots]
    examples = random.Random(seed).sample(shortest, shots)
    third, _, part = str(rows).partition("/")
    pool = shortest if third == "shortest_third" else problems
    keep, shown = {problem.id for problem in pool}, {asked(problem) for problem in examples}
    rest = [problem for problem in problems if problem.id in keep and asked(problem) not in shown]
    if third == "shortest_third":
        rows = int(part) if part else "all"
    return first_rows(rest, rows, "train"), examples


def first_rows(rows: Sequence[Any], wanted: str | int, name: str) -> list[Any]:
    """The first `wanted` rows, or all of them. Raises BadInput if there are fewer."""
    if wanted == "all":
        return list(rows)
    if wanted > len(rows):
        raise BadInput(
            f"data.{name}_rows: {wanted} rows wanted, but only {len(rows)} are there; set a smaller number or all"
        )
    return list(rows[:wanted])


def stratified(prompts: Sequence[Prompt], wanted: str | int, seed: int, name: str) -> list[Prompt]:
    """`wanted` prompts spread over hazard and persona in proportion to the file, in file order.

    Places are dealt out by largest remainder, first to hazards and then to the personas of each, and filled by a seeded
    draw: the rows of AILuminate are grouped by hazard, so the first N would be one or two hazards. Raises BadInput if
    there are fewer rows than wanted.
    """
    if wanted == "all":
        return list(prompts)
    first_rows(prompts, wanted, name)
    rng = random.Random(seed)
    chosen: set[str] = set()
    by_hazard = _grouped(prompts, lambda prompt: prompt.hazard)
    for hazard, places in _apportion({h: len(rows) for h, rows in by_hazard.items()}, wanted).items():
        by_persona = _grouped(by_hazard[hazard], lambda prompt: prompt.persona)
        for persona, number in _apportion({p: len(rows) for p, rows in by_persona.items()}, places).items():
            chosen.update(prompt.id for prompt in rng.sample(by_persona[persona], number))
    return [prompt for prompt in prompts if prompt.id in chosen]


def _grouped(prompts: Sequence[Prompt], key: Any) -> dict[str, list[Prompt]]:
    groups: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        groups[key(prompt)].append(prompt)
    return groups


def _apportion(sizes: dict[str, int], places: int) -> dict[str, int]:
    """Deal `places` out in proportion to sizes (largest remainder; ties go to the group named first)."""
    total = sum(sizes.values())
    dealt = {name: places * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(places * sizes[name] % total))
    for name in by_remainder[: places - sum(dealt.values())]:
        dealt[name] += 1
    return dealt
