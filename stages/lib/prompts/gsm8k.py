"""GSM8K: the prompt's wording, and three rules that read the final number out of an answer.

strict     lm-evaluation-harness, task gsm8k version 3, filter strict-match: the first `#### N`; none means wrong
flexible   the same task's filter flexible-extract: the last thing that looks like a number
published  the paper's code: everything after the last `####`, stripped, without , $ % g, compared as a string

What strict and flexible read is compared as a number: `#### 18.00`, `$18.00`, `1,234.00` and `018`, which the harness
compares as text and calls wrong, are right here.
The three differ on the same text (`#### $18` is none, 18 and 18), so all are reported and the headline names its rule.
Pure: no model library is imported.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

from stages.lib.prompts.thinking import spoken

Rule = Literal["strict", "flexible", "published"]
RULES: tuple[Rule, ...] = get_args(Rule)

# The wording of the paper's published code; example turns carry the question alone.
QUESTION = "Q: {question} Let's think step by step. At the end, you MUST write the answer as an integer after '####'."
EXAMPLE_QUESTION = "Q: {question}"
SOLUTION = "A: {answer}"
REWRITE = f"""{QUESTION}

Here is a solution for reference:

{{answer}}

Use it as a guide, and write a solution of your own, in your own words. Do not mention the reference."""

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_GOLD = re.compile(r"#### *(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s*\Z")


def extract(text: str, rule: Rule) -> str | None:
    """The part of an answer that `rule` takes for the final number, as written; None if there is no such part.

    Thoughts before the answer are no part of it.
    """
    text = spoken(text)
    if rule == "strict":
        match = _STRICT.search(text)
        return match.group(1) if match else None
    if rule == "flexible":
        matches = list(_FLEXIBLE.finditer(text))
        return matches[-1].group(0) if matches else None
    return _published(text.rsplit("####", 1)[1]) if "####" in text else None


def is_correct(text: str, gold: str, rule: Rule) -> bool:
    """Whether the number that `rule` reads from `text` is `gold` (as number, or as string for `published`)."""
    found = extract(text, rule)
    if found is None:
        return False
    if rule == "published":
        return found == _published(gold)
    number = as_number(found)
    return number is not None and number == as_number(gold)


def gold_answer(answer: str) -> str | None:
    """The number on a worked solution's last line, `#### N`, without thousands commas; None if it has none."""
    match = _GOLD.search(answer)
    return match.group(1).replace(",", "") if match else None


def as_number(text: str) -> Decimal | None:
    """`text` without , $ and a trailing full stop, as a number (18.00 equals 18); None if it is none."""
    try:
        number = Decimal(text.replace(",", "").replace("$", "").removesuffix("."))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _published(text: str) -> str:
    return re.sub(r"[,$%g]", "", text.strip())
