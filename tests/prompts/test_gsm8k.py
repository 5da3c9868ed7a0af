"""Reading numbers: the three rules on the same text differ exactly as lm-evaluation-harness and the paper's code do."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.prompts.gsm8k import RULES, as_number, extract, gold_answer, is_correct
from stages.lib.prompts.thinking import spoken

# output, then what each rule reads: the number it finds, "wrong" (reads something else), or None (reads nothing)
TABLE = [
    ("#### 18 dollars", "18", "18", "wrong"),
    ("#### 18.", "18", "18", "wrong"),
    ("#### $18", None, "18", "18"),
    ("####18", None, "18", "18"),
    ("The answer is 18.", None, "18", None),
    ("#### 18\nQ: next? ... #### 25", "18", "25", "25"),
    ("#### 18\n\nNote: 2 steps.", "18", "2", "wrong"),
    ("", None, None, None),
]


@pytest.mark.parametrize(("text", "strict", "flexible", "published"), TABLE)
def test_each_rule_reads_the_published_examples(text, strict, flexible, published):
    for rule, expected in zip(RULES, (strict, flexible, published), strict=True):
        found = extract(text, rule)
        if expected is None:
            assert found is None
        elif expected == "wrong":
            assert not is_correct(text, "18", rule)
        else:
            assert is_correct(text, expected, rule)
            assert is_correct(text, "18", rule) == (expected == "18")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>Say #### 7. No.</think>\n#### 18", "\n#### 18"),
        ("Say #### 7. No.</think>\n#### 18", "\n#### 18"),  # of a template that opens the thought itself
        ("<think>7</think>#### 7<think>or</think> #### 18", " #### 18"),
        ("<think>It is #### 7, or is", ""),
        ("#### 7 <think>or is it", ""),
        ("</think>", ""),
        ("  #### 7\n", "  #### 7\n"),
    ],
)
def test_thoughts_are_read_past_by_every_rule(text, said):
    assert spoken(text) == said
    for rule in RULES:
        assert extract(text, rule) == extract(said, rule)
    assert (extract(text, "strict") or "none") in said + "none"


@pytest.mark.parametrize("text", ["#### 18.00", "#### 1,8", "#### 18,", "#### 0018"])
def test_strict_compares_numbers_not_strings(text):
    assert is_correct(text, "18", "strict")


def test_thousands_and_negative_gold_answers():
    assert gold_answer("so\n#### 1,234") == "1234"
    assert gold_answer("#### -5") == "-5"
    assert is_correct("#### 1,234", "1234", "strict")
    assert is_correct("#### 1234", "1,234", "published")
    assert is_correct("#### -5", "-5", "strict")
    assert not is_correct("#### 5", "-5", "strict")


@pytest.mark.parametrize("answer", ["", "no mark", "####", "#### x", "#### 5 apples", "5 ####"])
def test_a_solution_without_a_final_number_has_no_gold(answer):
    assert gold_answer(answer) is None


def test_punctuation_that_only_looks_like_a_number_is_wrong_not_an_error():
    for text in ("#### ...", "#### ,", "#### -", "well... $$", "#### 1.2.3"):
        assert not any(is_correct(text, "18", rule) for rule in ("strict", "flexible"))


@given(st.text())
def test_extraction_never_fails_and_agrees_with_the_harness_expressions(text):
    strict = re.search(r"#### (\-?[0-9\.\,]+)", text)
    assert extract(text, "strict") == (strict.group(1) if strict else None)
    flexible = [m.group(0) for m in re.finditer(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)]
    assert extract(text, "flexible") == (flexible[-1] if flexible else None)
    for rule in RULES:
        is_correct(text, "18", rule)


@given(st.integers(-(10**9), 10**9))
def test_a_plainly_written_answer_is_right_under_every_rule(number):
    text = f"It is so.\n#### {number}"
    assert all(is_correct(text, str(number), rule) for rule in RULES)
    assert not any(is_correct(text, str(number + 1), rule) for rule in RULES)
    assert as_number(f"{number:,}.") == number
