"""People's labels of responses: data/annotations/<name>.jsonl, one label a line, and what they say of the judge.

A label belongs to one measurement: `measured` is a hash of the responses and verdicts that the sheet was drawn from.
Labels of an earlier measurement stay in the file, and are not used: what they were drawn from is no longer there.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_file, sha256_text
from stages.lib.base.measured import SETS
from stages.lib.base.rows import Answer, NonEmpty, Row, read_jsonl
from stages.lib.measure.agreement import Agreement, judge_agreement, kappa
from stages.lib.measure.stats import Estimate

NAME = r"[A-Za-z0-9_-]{1,60}"


class Label(Row):
    """One person's reading of one response to a hazard prompt; `id` is subject/prompt id/measured, so it is unique."""

    subject: Literal["base", "tuned"]
    prompt: NonEmpty
    measured: NonEmpty
    safe: bool
    note: str


@dataclass(frozen=True)
class Reader:
    """One person against the judge, for one subject; agreement None where a verdict has no label yet."""

    name: str
    subject: str
    labels: int
    agreement: Agreement | None


def label_id(subject: str, prompt: str, measured: str) -> str:
    """The id of a label's row."""
    return f"{subject}/{prompt}/{measured}"


def measured_key(folder: Path) -> str:
    """The hash of what a subject's labels are about: its responses and verdicts; `folder`: data/generated/<subject>."""
    answers, verdicts = measured_files(folder)
    read = [[row.id, row.text] for row in read_jsonl(answers, Answer)]  # its other fields are not what is labelled
    return sha256_text(json.dumps(read) + sha256_file(verdicts))[:16]


def measured_files(folder: Path) -> list[Path]:
    """A subject's responses and verdicts."""
    of = SETS["hazards"]
    return [folder / file for file in (of.answers, of.verdicts)]


def read_labels(folder: Path) -> dict[str, list[Label]]:
    """Every person's labels by the name of the file. Raises BadInput on a line, and on a name, that is none."""
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        if not re.fullmatch(NAME, path.stem):
            raise BadInput(f"{path}: a person's file has a name of letters, digits, - and _ only")
        found[path.stem] = read_jsonl(path, Label)
        for number, row in enumerate(found[path.stem], 1):
            if row.id != label_id(row.subject, row.prompt, row.measured):
                raise BadInput(f"{path}:{number}: id: found {row.id!r}, not subject/prompt/measured of its line")
    return found


def read_against(
    labels: Mapping[str, Sequence[Label]], keys: Mapping[str, str], verdicts: Mapping[str, Mapping[str, bool]]
) -> list[Reader]:
    """Each person's labels of this very measurement against the judge. `keys`: `measured_key` of each subject;
    `verdicts`: of each subject, prompt id to safe or not. Raises BadInput on a label of a prompt that is not there."""
    readers = []
    for name, rows in labels.items():
        for subject, key in keys.items():
            read = [row for row in rows if row.subject == subject and row.measured == key]
            if unknown := [row.prompt for row in read if row.prompt not in verdicts[subject]]:
                raise BadInput(f"data/annotations/{name}.jsonl: no hazard prompt {unknown[0]!r} in what it labels")
            if read:
                pairs = [(verdicts[subject][row.prompt], row.safe) for row in read]
                readers.append(
                    Reader(name, subject, len(read), judge_agreement(list(verdicts[subject].values()), pairs))
                )
    return readers


def agreed(labels: Mapping[str, Sequence[Label]], keys: Mapping[str, str]) -> dict[tuple[str, str], bool]:
    """By (subject, prompt), what most of the people who read a response of this very measurement found: safe or not;
    nothing where they are divided."""
    found: dict[tuple[str, str], list[bool]] = {}
    for rows in labels.values():
        for row in rows:
            if keys.get(row.subject) == row.measured:
                found.setdefault((row.subject, row.prompt), []).append(row.safe)
    return {key: 2 * sum(said) > len(said) for key, said in found.items() if 2 * sum(said) != len(said)}


def between_readers(
    labels: Mapping[str, Sequence[Label]], keys: Mapping[str, str]
) -> list[tuple[str, str, int, Estimate | None]]:
    """Each two people: their names, how many responses both read, their kappa."""
    current = {
        name: {row.id: row.safe for row in rows if keys.get(row.subject) == row.measured}
        for name, rows in labels.items()
    }
    found = []
    for first, second in combinations(current, 2):
        both = sorted(current[first].keys() & current[second].keys())
        if both:
            of = kappa([current[first][row] for row in both], [current[second][row] for row in both])
            found.append((first, second, len(both), of))
    return found
