"""When a text counts as repeating itself, and how generation ends it."""

import random

import pytest

from stages.lib.generate.engine import Engine, greedy
from stages.lib.generate.repetition import EVERY, is_repetitive, number_tokens
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, find, load_tokenizer

NUMBERS = frozenset(range(10))


def ended_at(tokens: list[int]) -> int | None:
    """The length at which a text that grows token by token would be ended."""
    return next((size for size in range(1, len(tokens) + 1) if is_repetitive(tokens[:size], NUMBERS)), None)


def fresh(count: int, seed: int = 0) -> list[int]:
    """Tokens that write nothing twice."""
    return random.Random(seed).sample(range(10, 50_000), count)


def test_new_text_is_never_ended_however_long():
    assert ended_at(fresh(2000)) is None


@pytest.mark.parametrize("piece", [1, 2, 7, 30])
def test_one_piece_over_and_over_is_ended_soon(piece):
    looped = fresh(40) + fresh(piece, 1) * 512
    assert 96 < ended_at(looped) <= 40 + piece + 4 + 96 + EVERY


def test_a_list_whose_items_differ_in_their_numbers_only_is_ended():
    item = fresh(9, 1)
    numbered = [token for n in range(100) for token in (*(int(digit) for digit in str(n)), *item)]
    assert ended_at(fresh(30) + numbered) < 200


def test_a_list_of_new_items_with_one_form_is_not():
    form = fresh(4, 1)  # half of every item is the same
    items = [token for n in range(60) for token in (*form, *fresh(4, 10 + n))]
    assert ended_at(items) is None


def test_a_passage_said_twice_is_not():
    assert ended_at(fresh(90) * 2) is None


def test_numbers_are_those_of_the_tokenizer(tiny_models):
    tokenizer = load_tokenizer(Source(str(tiny_models["qwen2"]), None))
    numbers = number_tokens(tokenizer)
    assert set(tokenizer(" 7", add_special_tokens=False)["input_ids"]) & numbers
    assert not set(tokenizer("seven eggs, please", add_special_tokens=False)["input_ids"]) & numbers


@pytest.mark.slow  # half a minute
def test_generation_ends_a_loop_and_changes_nothing_else():
    source = find("embedded/smollm2-135m", None)
    model, tokenizer = load_base(source, "none", "float32"), load_tokenizer(source)
    prompts = ["Names of fruit:\n1. Apple\n2.", "la la la la", "The capital of France is Paris. The capital of"]
    whole = greedy(Engine(model, tokenizer, 4), prompts, 200, "test")
    ended = greedy(Engine(model, tokenizer, 4), prompts, 200, "test", end_repetition=True)
    assert "repetition" in {each.finish for each in ended}
    for long, short in zip(whole, ended, strict=True):
        if short.finish == "repetition":
            assert short.tokens % EVERY == 0
            assert short.tokens < 200
            assert long.text.startswith(short.text)
        else:
            assert short == long
