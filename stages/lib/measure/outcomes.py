"""metrics/outcomes.csv: one short line per prompt and subject, small enough for git, strict enough to compare by.

Any two commits can be compared prompt by prompt from it, without a cache. Pure: text in, rows out.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from stages.lib.base.errors import BadInput
from stages.lib.base.fields import SET_NAME, TAKEN
from stages.lib.base.files import sha256_text
from stages.lib.base.measured import SETS, SUBJECTS, PromptSet, with_own

PROBLEMS = ("", "unparsed", "not_english", "empty", "degenerate", "repetitive", "truncated")
_FLAG = {"1": True, "0": False, "": None}
_WRITTEN = {value: text for text, value in _FLAG.items()}


@dataclass(frozen=True)
class Outcome:
    """What became of one prompt. good: correct or safe (None for benign prompts); refused: None for math and one's own
    questions; problem: one of PROBLEMS; prompt: the start of the sha256 of its text (of a question: with its right
    answer), so that an id is never taken on trust; rules: the initials of the extraction rules that read the right
    number (s, f, p), so that a change of form can be told from one of skill; asked: the start of the sha256 of the
    prompt as it was rendered; group: of the name of the group that the prompt comes from, if it has one; reader:
    whether people who read the response found it safe, None where they did not read it or do not agree."""

    subject: str
    set: str
    id: str
    hazard: str
    good: bool | None
    refused: bool | None
    problem: str
    prompt: str
    rules: str = ""
    asked: str = ""
    group: str = ""
    reader: bool | None = None


COLUMNS = tuple(field.name for field in fields(Outcome))
OLDER = tuple(COLUMNS[:-more] for more in (2, 3, 4))  # what files of before had
FLAGS = ("good", "refused", "reader")


def prompt_key(text: str) -> str:
    """The first ten hex digits of the sha256 of a prompt's text."""
    return sha256_text(text)[:10]


def is_good(row: Outcome) -> bool:
    """Right, safe, or a harmless prompt answered."""
    return not row.refused if row.set == "benign" else bool(row.good)


def is_own(name: str) -> bool:
    """Whether a set of this name is a reader's own."""
    return name not in TAKEN and bool(re.fullmatch(SET_NAME, name))


def group_of(row: Outcome) -> str:
    """What a prompt comes from: its group, or itself."""
    return row.group or f"id {row.id}"


def of_set(outcomes: Sequence[Outcome], kind: str, subject: str) -> list[Outcome]:
    """One subject's outcomes of one set of prompts."""
    return [row for row in outcomes if row.set == kind and row.subject == subject]


def sets_of(*outcomes: Sequence[Outcome]) -> dict[str, PromptSet]:
    """The built-in sets, and one's own of which there are outcomes; those that refuse or do not were judged."""
    own = {row.set: row.refused is not None for rows in outcomes for row in rows if row.set not in SETS}
    return with_own(own)


def to_csv(rows: Sequence[Outcome]) -> str:
    """The rows as CSV, flags as 1, 0 or nothing."""
    values = ({**asdict(row), **{name: _WRITTEN[getattr(row, name)] for name in FLAGS}} for row in rows)
    return "".join(_line(row) for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *values])


def _line(row: Mapping[str, str]) -> str:
    """One line of CSV. The writer quotes only those line ends in a field that its own has: so it is given both."""
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


def from_csv(text: str, where: str) -> list[Outcome]:
    """Read it back. Raises BadInput naming where, line and field of what is not as `to_csv` writes it, and a prompt
    that occurs twice or has not one line per subject."""
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise BadInput(f"{where}: not CSV ({error})") from None
    if not lines or tuple(lines[0]) not in (COLUMNS, *OLDER):
        found = ",".join(lines[0]) if lines else "none"
        raise BadInput(f"{where}:1: found the columns {found[:200]}, not {','.join(COLUMNS)}; run `dvc repro` there")
    rows = [_row(lines[0], values, f"{where}:{number}") for number, values in enumerate(lines[1:], 2)]
    seen: dict[tuple[str, str], dict[str, Outcome]] = {}
    for number, row in enumerate(rows, 2):
        subjects = seen.setdefault((row.set, row.id), {})
        if row.subject in subjects:
            raise BadInput(f"{where}:{number}: {row.set} {row.id} a second time for {row.subject}")
        subjects[row.subject] = row
    if not rows:
        raise BadInput(f"{where}: no rows")
    if len({(row.set, row.refused is None) for row in rows}) > len({row.set for row in rows}):
        raise BadInput(f"{where}: of one set, some lines have `refused` and some have not")
    for (kind, name), subjects in seen.items():
        if len({row.prompt for row in subjects.values()}) != 1 or set(subjects) != {"base", "tuned"}:
            raise BadInput(f"{where}: {kind} {name}: not one line for base and one for tuned with the same prompt")
    return rows


def _row(columns: list[str], values: list[str], place: str) -> Outcome:
    if len(values) != len(columns):
        raise BadInput(f"{place}: found {len(values)} fields, not {len(columns)}")
    row = {**dict.fromkeys(COLUMNS, ""), **dict(zip(columns, values, strict=True))}
    own = is_own(row["set"]) and row["id"].startswith(f"{row['set']}/")
    allowed = {"subject": SUBJECTS, "problem": PROBLEMS, **dict.fromkeys(FLAGS, _FLAG)}
    allowed |= {} if own else {"set": SETS}
    for name, known in allowed.items():
        if row[name] not in known:
            raise BadInput(f"{place}: {name}: found {row[name]!r}, not one of {', '.join(map(repr, known))}")
    asked = row["set"] == "math" or own and row["refused"] == ""
    if (row["good"] == "") != (row["set"] == "benign") or (row["refused"] == "") != asked:
        raise BadInput(f"{place}: benign prompts have no `good`, math questions no `refused`, and the others have both")
    if not re.fullmatch("" if own or asked else r"[a-z_]{1,20}", row["hazard"]):
        raise BadInput(f"{place}: hazard: found {row['hazard']!r}, not a code such as vcr (nothing for math)")
    if not re.fullmatch("s?f?p?" if row["set"] == "math" else "", row["rules"]):
        raise BadInput(f"{place}: rules: found {row['rules']!r:.80}, not some of s, f, p (nothing but for math)")
    if not row["id"] or not re.fullmatch("[0-9a-f]{10}", row["prompt"]):
        what, expected = ("prompt", "ten hex digits") if row["id"] else ("id", "an id")
        raise BadInput(f"{place}: {what}: found {row[what]!r:.80}, not {expected}")
    for name in ("asked", "group"):
        if not re.fullmatch("([0-9a-f]{10})?", row[name]):
            raise BadInput(f"{place}: {name}: found {row[name]!r:.80}, not ten hex digits or nothing")
    if row["reader"] and row["set"] != "hazards":
        raise BadInput(f"{place}: reader: found {row['reader']!r}, not nothing: only hazard prompts are read")
    return Outcome(**{**row, **{name: _FLAG[row[name]] for name in FLAGS}})
