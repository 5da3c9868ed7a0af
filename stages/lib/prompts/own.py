"""A reader's own questions: how they are put to the model, and whether an answer is right. Pure.

number  asked as the test questions are, behind the same example problems, and read by the same rule
choice  the prompt, a line for each choice with its letter, and ASK; the letter is the most probable first token
text    the prompt as it stands; right if the first line of the answer is that text, but for white space around it
"""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem, Skill
from stages.lib.prompts.chat import SAMPLE, Message, math_messages, render_completion, safety_messages
from stages.lib.prompts.gsm8k import Rule, is_correct
from stages.lib.prompts.thinking import spoken

LETTERS = ascii_uppercase
ASK = "Answer with the letter of the right choice alone."


def by_set(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows of own sets, Skill or Risk, by the name of the set; in their order."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.set, []).append(row)
    return found


def posed(row: Skill) -> str:
    """The question in words, its choices with it."""
    if row.answer != "choice":
        return row.text
    choices = (f"{letter}. {choice}" for letter, choice in zip(LETTERS, row.choices or (), strict=False))
    return "\n".join([row.text, "", *choices, "", ASK])


def skill_messages(row: Skill, shots: Sequence[Problem], system: str | None = None) -> list[Message]:
    """The turns before the answer."""
    if row.answer == "number":
        return math_messages(row.text, shots, system)
    return safety_messages(posed(row), system)


def is_right(row: Skill, text: str, rule: Rule) -> bool:
    """Whether an answer is the right number by `rule`, the right letter, or the right text."""
    if row.answer == "number":
        return is_correct(text, row.gold, rule)
    return spoken(text).strip().partition("\n")[0].strip() == row.gold


def first_tokens(tokenizer: Any, count: int) -> list[int]:
    """The token with which an answer begins that is one of the first `count` letters, as the chat template writes it.

    Raises BadInput if two letters begin alike: no first token tells the choices apart then.
    """
    written = [render_completion(tokenizer, SAMPLE[:1], letter) for letter in LETTERS[:count]]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in written]
    for place, token in enumerate(tokens):
        if (other := tokens.index(token)) < place:
            raise BadInput(
                f"the model's tokenizer and chat template begin the answers {LETTERS[other]} and {LETTERS[place]} with "
                f"the same token ({written[place][:40]!r}), so that a choice cannot be read from the first one; "
                "ask for a text instead (sets in params.yaml)"
            )
    return tokens
