"""A reader's own questions: how they are asked, and which answers are right."""

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem, Skill
from stages.lib.model.sources import find, load_tokenizer
from stages.lib.prompts.chat import math_messages
from stages.lib.prompts.own import first_tokens, is_right, skill_messages
from tests.prompts.test_chat import CHATML, QWEN3_THINKING

SHOT = Problem(id="s", question="How many?", answer="#### 1", gold="1")


def skill(answer: str, gold: str, choices: list[str] | None = None) -> Skill:
    return Skill(id="mine/1", set="mine", answer=answer, text="What is it?", choices=choices, gold=gold)


def test_a_number_is_asked_as_the_test_questions_are_and_the_others_alone():
    asked = skill_messages(skill("number", "2"), [SHOT], "Be kind.")
    assert asked == math_messages("What is it?", [SHOT], "Be kind.")
    assert skill_messages(skill("text", "two"), [SHOT]) == [{"role": "user", "content": "What is it?"}]
    ((turn),) = skill_messages(skill("choice", "B", ["one", "two"]), [SHOT])
    lines = ("What is it?", "", "A. one", "B. two", "", "Answer with the letter of the right choice alone.")
    assert turn["content"] == "\n".join(lines)


@pytest.mark.parametrize(
    ("answer", "gold", "text", "right"),
    [
        ("number", "1,000", "So #### 1000", {"strict": True, "flexible": True, "published": True}),
        ("number", "18", "#### $18", {"strict": False, "flexible": True, "published": True}),
        ("choice", "B", "B", {"strict": True}),
        ("choice", "B", "A", {"strict": False}),
        ("text", "two", " two \nor three", {"strict": True}),
        ("text", "two", "<think>three</think>two", {"strict": True}),
        ("text", "two", "Two", {"strict": False}),
        ("text", "two", "two.", {"strict": False}),
        ("text", "two", "", {"strict": False}),
    ],
)
def test_what_is_right(answer, gold, text, right):
    choices = ["one", "two"] if answer == "choice" else None
    assert {rule: is_right(skill(answer, gold, choices), text, rule) for rule in right} == right


def test_letters_are_told_apart_by_the_first_token_or_refused():
    tokenizer = load_tokenizer(find("embedded/smollm2-135m", None))
    tokenizer.chat_template = CHATML
    tokens = first_tokens(tokenizer, 26)
    assert [tokenizer.decode(token) for token in tokens] == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert first_tokens(tokenizer, 0) == []
    tokenizer.chat_template = QWEN3_THINKING  # whose answers begin with the end of a thought
    with pytest.raises(BadInput, match="begin the answers A and B with the same token"):
        first_tokens(tokenizer, 2)
