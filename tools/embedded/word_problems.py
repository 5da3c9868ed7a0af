"""Make the small set of grade-school word problems used as the in-repository math data.

The rows are in GSM8K's format (a question, and an answer with one line per step, calculator annotations such
as `12+7=<<12+7=19>>19`, and a last line `#### 19`), so that training and scoring code can be tried without a
download. The problems are much easier than GSM8K's: every step is mental arithmetic with small numbers, so that a
small model has something it can learn.

    python -m tools.embedded.word_problems            rewrite data/embedded/{train,validation,test}.jsonl
    python -m tools.embedded.word_problems --check    exit 1 if those files differ from what it would write

The templates and words are in word_problem_templates/; each row carries the name of its template as its `group`. From a
test, put this folder on sys.path and import `rows`. Every split has its own seed, and the output is the same bytes on
every Python from 3.11 on.
"""

import argparse
import json
import random
import re
import sys

from tools.embedded import DATA
from tools.embedded.word_problem_templates import TEMPLATES, WORDS
from tools.embedded.word_problem_templates.template import Draw, Template

ROWS_PER_TEMPLATE = {"train": 16, "validation": 5, "test": 2}
SEEDS = {"train": 1101, "validation": 1103, "test": 1102}
LOWEST, HIGHEST = 2, 100  # limits on every operand and result; starting at 2 keeps each noun in the plural
ONE_FACTOR, OTHER_FACTOR = 9, 12  # limits on the two factors of a product, or on a divisor and its quotient
TRIES = 10_000
STEP = re.compile(r"\[(\$?)([^]=]+)=(\w)\]")


def work_out(left: int, operator: str, right: int) -> int | None:
    """The result of one operation, or None beyond the limits, which keep to numbers that a small model can learn."""
    if operator == "*":
        value = left * right
        easy = min(left, right) <= ONE_FACTOR and max(left, right) <= OTHER_FACTOR
    elif operator == "/":
        value = left // right
        easy = left == value * right and right <= ONE_FACTOR and value <= OTHER_FACTOR
    else:
        value = left + right if operator == "+" else left - right
        easy = True
    return value if easy and all(LOWEST <= number <= HIGHEST for number in (left, right, value)) else None


def evaluate(expression: str) -> int | None:
    """The value of e.g. '12+7-3', from left to right, or None where an operation goes beyond the limits."""
    first, *rest = re.findall(r"[-+*/]?\d+", expression)
    value: int | None = int(first)
    for part in rest:
        if value is not None:
            value = work_out(value, part[0], int(part[1:]))
    return value


def draw_number(draw: Draw, rng: random.Random) -> int:
    """A number from a (lowest, highest) pair or from a list of choices."""
    return rng.choice(draw) if isinstance(draw, list) else rng.randint(*draw)


def draw_words(lists: dict[str, list[str]], rng: random.Random) -> dict[str, str]:
    """Three different words from each list, as e.g. `name`, `name2` and `name3`."""
    words = {}
    for slot, choices in lists.items():
        for suffix, word in zip(("", "2", "3"), rng.sample(choices, 3), strict=True):
            words[slot + suffix] = word
    return words


def fill(template: Template, words: dict[str, str], rng: random.Random) -> dict[str, str] | None:
    """One row, or None where the numbers drawn are not all different or a step goes beyond the limits."""
    numbers = {letter: draw_number(draw, rng) for letter, draw in template.numbers.items()}
    if len(set(numbers.values())) < len(numbers):
        return None
    question = template.question.format(**words, **numbers)
    lines = []
    for line in template.answer:
        dollar, letters, result = STEP.findall(line)[0]
        expression = re.sub(r"[a-z]", lambda letter: str(numbers[letter[0]]), letters)
        value = evaluate(expression)
        if value is None:
            return None
        numbers[result] = value
        line = STEP.sub(f"{expression}={dollar}<<{expression}={value}>>{value}", line)
        lines.append(line.format(**words, **numbers))
    return {"question": question, "answer": "\n".join([*lines, f"#### {value}"]), "group": template.group}


def draw_rows(template: Template, count: int, lists: dict[str, list[str]], rng: random.Random) -> list[dict[str, str]]:
    """`count` rows from a template, each with other numbers in its question."""
    made: dict[tuple[str, ...], dict[str, str]] = {}
    for _ in range(TRIES):
        row = fill(template, draw_words(lists, rng), rng)
        if row:
            made.setdefault(tuple(re.findall(r"\d+", row["question"])), row)
        if len(made) == count:
            return list(made.values())
    raise ValueError(f"fewer than {count} different rows in {TRIES} tries: {template.question}")


def rows(split: str) -> list[dict[str, str]]:
    """The shuffled rows of 'train', 'validation' or 'test', as many from each of the split's templates."""
    rng = random.Random(SEEDS[split])
    made: list[dict[str, str]] = []
    for template in TEMPLATES[split]:
        made += draw_rows(template, ROWS_PER_TEMPLATE[split], WORDS[split], rng)
    rng.shuffle(made)
    return made


def jsonl(split: str) -> str:
    """The text of a split's file."""
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows(split))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewrite the word problems of data/embedded.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    check = parser.parse_args(argv).check
    stale = []
    for split in TEMPLATES:
        path = DATA / f"{split}.jsonl"
        data = jsonl(split).encode("ascii")
        if not check:
            path.write_bytes(data)
        elif not path.is_file():
            stale.append(f"{path.name} is missing")
        elif path.read_bytes() != data:
            stale.append(f"{path.name} differs from what this script writes")
    if stale:
        print("; ".join(stale) + ". Run this script without --check to rewrite.", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
