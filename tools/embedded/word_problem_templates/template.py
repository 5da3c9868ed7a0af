"""What a template is, and how to write one.

How to read an entry:

- the first argument is the template's name, which its rows carry as their `group`, and the second the number of
  steps; then comes the question, then one answer line per step;
- `{a}` is a number drawn for the template: `a=(12, 60)` means from 12 to 60, `a=[20, 50]` one of these;
- `{thing}` is a word from the split's list of that name; `{thing2}` and `{thing3}` are others from it;
- `[a+b=c]` works out a step: it prints `12+7=<<12+7=19>>19`, and later steps can use the result as `c`;
  `[$a+b=c]` prints a dollar sign before the result.

A step uses only + and -, or only * and /, and is worked out from left to right. Numbers are drawn again until
they all differ and every step keeps to the limits of word_problems.py, so an entry need not arrange for that.
Every noun takes a plain -s in the plural, and a list used after "a" has no word that would need "an".
"""

import re
from typing import NamedTuple

Draw = tuple[int, int] | list[int]


class Template(NamedTuple):
    group: str
    steps: int
    question: str
    answer: tuple[str, ...]
    numbers: dict[str, Draw]


def problem(group: str, steps: int, question: str, *answer: str, **numbers: Draw) -> Template:
    """A template, checked to have a short plain name and one answer line for each declared step."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", group) or len(group) > 60:
        raise ValueError(f"the name of a template is at most 60 letters, digits and hyphens: {group}")
    if len(answer) != steps:
        raise ValueError(f"{steps} steps declared but {len(answer)} answer lines given: {question}")
    return Template(group, steps, question, answer, numbers)
