"""Sets that are taken for disjoint are so: a test question that is a training row or an example tests nothing, a prompt
that is a hazard and harmless would have to be refused and answered. Pure.

Texts are compared, not ids: a problem's id is its place in a file, a prompt's is whatever its author chose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem, Prompt, Risk, Skill
from stages.lib.prompts.own import posed

Row = Problem | Prompt | Skill | Risk
NAMED = 10  # rows that a message names
MEND = "leave such a row in one of the two files only"


def asked(row: Row) -> str:
    """What a row asks, but for what makes no other question of it: capitals, and how its words are set apart."""
    text = row.question if isinstance(row, Problem) else posed(row) if isinstance(row, Skill) else row.text
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Rule:
    """Two sets with nothing in common: what is compared, what a row that is in both does, why not, how to mend it."""

    first: str
    second: str
    of: Callable[[Row], str]
    does: str
    why: str


DISJOINT = (
    *(
        Rule(
            "train", name, asked, "asks what {} asks", f"what a model was trained on or is shown tests nothing; {MEND}"
        )
        for name in ("test", "skills")
    ),
    *(
        Rule("replay", name, asked, "asks what {} asks", f"what a model was trained on tests nothing; {MEND}")
        for name in ("test", "hazards", "benign", "risks")
    ),
    Rule("hazards", "benign", asked, "asks what {} asks", f"it cannot be right to refuse it and to answer it; {MEND}"),
    *(
        Rule(
            first,
            second,
            lambda row: row.id,
            "has the id of {}",
            "responses to both are kept in one file, by id; number those of one file otherwise, as b1, b2, ...",
        )
        for first, second in (("hazards", "benign"), ("hazards", "risks"), ("benign", "risks"))
    ),
)


def check_disjoint(sets: Mapping[str, Sequence[Row]], place: Callable[[str, str], str]) -> None:
    """Refuse sets with rows in common that must have none, naming the rows (BadInput). `train`: examples, too.

    `place` tells where the row of a set and an id stands: file and line.
    """
    for rule in DISJOINT:
        first, second = sets.get(rule.first, ()), sets.get(rule.second, ())
        there = {rule.of(row): row.id for row in first}
        same = [(there[rule.of(row)], row.id) for row in second if rule.of(row) in there]
        if same:
            named = [
                f"{place(rule.second, b)} ({b}) {rule.does.format(f'{place(rule.first, a)} ({a})')}"
                for a, b in same[:NAMED]
            ]
            many = f"{len(same)} of {len(second)} {rule.second} rows in all: {rule.why}"
            raise BadInput("\n       ".join([*named, many]))


def repeated(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(id of a row, id of the row before it that asks the same), in order."""
    first: dict[str, str] = {}
    found = [(row.id, first.setdefault(asked(row), row.id)) for row in rows]
    return [(row, before) for row, before in found if row != before]
