"""People in the loop: read some responses without seeing the judge's verdicts, and put the labels back.

    python -m tools.annotate sheet [--responses 80]    annotate/sheet.csv, blind and shuffled, and annotate/key.jsonl
    python -m tools.annotate sheet --flips             both responses to prompts, half of which flipped
    python -m tools.annotate add NAME                  the filled-in sheet → data/annotations/NAME.jsonl

Half of the sheet is the base model's, half the tuned one's; of each, half was judged safe and half unsafe (all of them
where there are fewer), stratified by hazard. With --flips, a quarter is of prompts judged safe before and unsafe after,
a quarter the other way round, half of prompts that stayed: labels of both responses say most of the change. Write safe
or unsafe into the column `label` (a spreadsheet will do; leave empty what you did not read); a second person fills in a
copy (--sheet). Hazard prompts and some responses to them are unpleasant. `dvc repro report` then shows the agreement
with the judge, and safety and its change corrected for its errors.
"""

import argparse
import csv
import io
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_text
from stages.lib.base.measured import PREPARED, SETS, SUBJECTS, generated
from stages.lib.base.params import load_params
from stages.lib.base.rows import Answer, NonEmpty, Prompt, Row, Verdict, read_jsonl, write_jsonl
from stages.lib.base.texts import visible
from stages.lib.data.subsets import stratified
from stages.lib.judge.guards import counts_as_safe
from stages.lib.report.annotations import NAME, Label, label_id, measured_files, measured_key

FOLDER, KEPT = Path("annotate"), Path("data/annotations")
COLUMNS = ("row", "prompt", "response", "label", "note")
LABELS = {"safe": True, "unsafe": False}
SEED = 1126


class Key(Row):
    """What a row of the sheet is; `id` is the sheet's row."""

    subject: NonEmpty
    prompt: NonEmpty
    measured: NonEmpty


@dataclass(frozen=True)
class Judged:
    """A response and whether the judge called it safe."""

    subject: str
    prompt: Prompt
    response: str
    safe: bool


def main() -> None:
    arguments = parse_arguments()
    if arguments.command == "sheet":
        write_sheet(arguments.responses, arguments.flips)
    else:
        add(arguments.name, arguments.sheet)


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("sheet", help="draw responses to label")
    drawing.add_argument("--responses", type=int, default=80, help="how many, a multiple of four (default 80)")
    drawing.add_argument("--flips", action="store_true", help="both responses to a prompt, by both verdicts")
    adding = commands.add_parser("add", help="put a person's labels back")
    adding.add_argument("name", help="letters, digits, - and _: the name of the file")
    adding.add_argument("--sheet", type=Path, default=FOLDER / "sheet.csv", help="the filled-in sheet")
    arguments = top.parse_args()
    if arguments.command == "sheet":
        least = 8 if arguments.flips else 4
        if arguments.responses < least or arguments.responses % least:
            drawing.error(f"--responses: a multiple of {least}, from {least} up")
    if arguments.command == "add" and not re.fullmatch(NAME, arguments.name):
        adding.error("name: letters, digits, - and _ only")
    return arguments


def write_sheet(responses: int, flips: bool = False) -> None:
    """Draw the responses, write sheet and key. A sheet that is there already may hold somebody's work: it is kept."""
    sheet = FOLDER / "sheet.csv"
    if sheet.exists():
        raise BadInput(f"{sheet}: there already, and may hold labels; put them back with `add`, then delete it")
    rows = [judged(subject) for subject in SUBJECTS]
    drawn = draw_pairs(*rows, responses // 8) if flips else [each for of in rows for each in draw(of, responses // 4)]
    random.Random(SEED).shuffle(drawn)
    keys = {subject: measured_key(generated(subject)) for subject in SUBJECTS}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, each in enumerate(drawn, 1):
        writer.writerow([number, cell(each.prompt.text), cell(each.response), "", ""])
    write_jsonl(
        FOLDER / "key.jsonl",
        [
            Key(id=str(number), subject=each.subject, prompt=each.prompt.id, measured=keys[each.subject])
            for number, each in enumerate(drawn, 1)
        ],
    )
    write_text(sheet, text.getvalue())
    print(f"annotate: {len(drawn)} responses in {sheet}; write safe or unsafe into `label`, then `add` it")


def judged(subject: str) -> list[Judged]:
    """A subject's responses to hazard prompts, with the judge's verdicts."""
    controversial = load_params().judge.controversial
    folder, of = generated(subject), SETS["hazards"]
    text = {row.id: row.text for row in read_jsonl(folder / of.answers, Answer)}
    label = {row.id: row.label for row in read_jsonl(folder / of.verdicts, Verdict)}
    prompts = read_jsonl(PREPARED / of.prompts, Prompt)
    if missing := [prompt.id for prompt in prompts if prompt.id not in text or prompt.id not in label]:
        raise BadInput(f"{folder}: no response or verdict for prompt {missing[0]!r}; run `dvc repro`")
    return [Judged(subject, p, text[p.id], counts_as_safe(label[p.id], controversial)) for p in prompts]


def draw(rows: Sequence[Judged], each: int) -> list[Judged]:
    """`each` of those judged safe and of those judged unsafe, or all there are; by hazard in proportion."""
    drawn = []
    for verdict in (True, False):
        there = {row.prompt.id: row for row in rows if row.safe == verdict}
        drawn += [there[prompt.id] for prompt in some([row.prompt for row in there.values()], each)]
    return drawn


def draw_pairs(before: Sequence[Judged], after: Sequence[Judged], each: int) -> list[Judged]:
    """Both responses to `each` of the prompts with the same two verdicts, or to all there are; by hazard."""
    drawn, pairs = [], {old.prompt.id: (old, new) for old, new in zip(before, after, strict=True)}
    for verdicts in product((True, False), repeat=2):
        prompts = [old.prompt for old, new in pairs.values() if (old.safe, new.safe) == verdicts]
        drawn += [row for prompt in some(prompts, each) for row in pairs[prompt.id]]
    return drawn


def some(prompts: Sequence[Prompt], each: int) -> list[Prompt]:
    """So many of the prompts, or all there are, by hazard in proportion."""
    return stratified(prompts, "all" if len(prompts) <= each else each, SEED, "--responses") if prompts else []


def add(name: str, sheet: Path) -> None:
    """Check the sheet against its key, and add its labels to the person's file; a label given again replaces."""
    key = {row.id: row for row in read_jsonl(FOLDER / "key.jsonl", Key)}
    found = {}
    reader = csv.DictReader(io.StringIO(read_text(sheet), newline=""))
    for values in _rows(sheet, reader):
        where = f"{sheet}:{reader.line_num}"
        said = (values["label"] or "").strip().lower()
        if not said:
            continue
        if said not in LABELS:
            raise BadInput(f"{where}: label: found {said!r}; expected safe, unsafe or nothing")
        of = key.get((values["row"] or "").strip())
        if of is None:
            raise BadInput(f"{where}: row: found {values['row']!r}, which {FOLDER / 'key.jsonl'} does not have")
        name_of = label_id(of.subject, of.prompt, of.measured)
        if name_of in found:
            raise BadInput(f"{where}: row: found {values['row']!r} a second time")
        found[name_of] = Label(
            id=name_of,
            subject=of.subject,
            prompt=of.prompt,
            measured=of.measured,
            safe=LABELS[said],
            note=(values["note"] or "").strip(),
        )
    if not found:
        raise BadInput(f"{sheet}: no label in it yet; write safe or unsafe into the column `label`")
    path = KEPT / f"{name}.jsonl"
    earlier = {row.id: row for row in read_jsonl(path, Label)} if path.exists() else {}
    write_jsonl(path, list((earlier | found).values()))
    said = f"annotate: {len(found)} labels in {path}"
    if gone := [file for name in SUBJECTS for file in measured_files(generated(name)) if not file.is_file()]:
        print(f"{said}; of which responses cannot be told, for {gone[0]} is not here: `dvc repro` brings it back")
        return
    today = {measured_key(generated(subject)) for subject in SUBJECTS}
    if {row.measured for row in found.values()} <= today:
        print(f"{said}; `dvc repro report` shows what they say of the judge")
    else:
        print(f"{said}, some of other responses than today's, which are not used")


def _rows(sheet: Path, reader: csv.DictReader) -> Iterator[dict[str, str]]:
    try:
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            expected = f"{', '.join(COLUMNS)}, and commas between them"
            raise BadInput(f"{sheet}:1: found the columns {str(reader.fieldnames):.200}; expected {expected}")
        yield from reader
    except csv.Error as error:
        raise BadInput(f"{sheet}:{reader.reader.line_num}: not readable as CSV: {error}") from None


def cell(text: str) -> str:
    """Text that a spreadsheet shows and does not compute: one that starts like a formula is quoted."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@") else shown


if __name__ == "__main__":
    run(main)
