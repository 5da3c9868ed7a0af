"""Batched decoding against the plainest possible loop, on random models of both architectures."""

import pytest
import torch

from stages.lib.engine import end_tokens, greedy, next_token
from stages.lib.errors import BadInput
from stages.lib.models import Source, load_base, load_tokenizer
from tests.conftest import ARCHITECTURES

PROMPTS = [
    "Hello",
    "The sum of two and two is",
    "a b c d e f g h i j k l m n o p",
    "Why?",
    "One two three four five six",
]


def slow_greedy(model, ids: list[int], limit: int, ends: set[int]) -> list[int]:
    """One token at a time, the whole text again for each, no cache."""
    written: list[int] = []
    with torch.no_grad():
        while len(written) < limit and not (written and written[-1] in ends):
            logits = model(torch.tensor([ids + written])).logits[0, -1]
            written.append(int(logits.argmax()))
    return written


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request, tiny_models):
    source = Source(str(tiny_models[request.param]), None)
    return load_base(source, "none", "float32"), load_tokenizer(source)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_any_batch_size_gives_what_one_prompt_at_a_time_gives(loaded, batch_size):
    model, tokenizer = loaded
    ends = end_tokens(model, tokenizer)
    got = greedy(model, tokenizer, PROMPTS, 12, batch_size, "test")
    for prompt, generation in zip(PROMPTS, got, strict=True):
        tokens = slow_greedy(model, tokenizer(prompt, add_special_tokens=False)["input_ids"], 12, ends)
        stopped = tokens[-1] in ends
        assert generation.text == tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True)
        assert (generation.finish, generation.tokens) == ("stop" if stopped else "length", len(tokens))


def test_the_end_of_turn_token_stops_and_is_counted_but_not_shown(loaded):
    model, tokenizer = loaded
    first = slow_greedy(model, tokenizer(PROMPTS[1], add_special_tokens=False)["input_ids"], 3, set())
    model.generation_config.eos_token_id = [2, first[2]]
    try:
        (generation,) = greedy(model, tokenizer, [PROMPTS[1]], 12, 1, "test")
    finally:
        model.generation_config.eos_token_id = 2
    assert (generation.finish, generation.tokens) == ("stop", 1 + min(first.index(first[2]), 2))
    assert tokenizer(generation.text, add_special_tokens=False)["input_ids"] != first


def test_a_models_own_sampling_and_penalty_are_not_followed(tiny_models):
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"]).generation_config
    assert (own.do_sample, own.repetition_penalty) == (True, 1.5)
    used = load_base(Source(str(tiny_models["qwen2"]), None), "none", "float32").generation_config
    assert not used.do_sample
    assert used.repetition_penalty in (None, 1.0)
    assert used.eos_token_id == 2


def test_next_token_gives_the_probabilities_of_the_unpadded_prompt(loaded):
    model, tokenizer = loaded
    got = next_token(model, tokenizer, PROMPTS, [5, 9], 3, "test")
    for prompt, (best, logs) in zip(PROMPTS, got, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])).logits[0, -1]
        assert best == int(logits.argmax())
        assert logs == pytest.approx(torch.log_softmax(logits, -1)[[5, 9]].tolist(), abs=1e-4)


def test_a_prompt_longer_than_the_context_is_refused(loaded, monkeypatch):
    model, tokenizer = loaded
    monkeypatch.setattr(model.config, "max_position_embeddings", 12)
    with pytest.raises(BadInput, match=r"prompt 3 takes \d+ tokens, but the model's context holds 12"):
        greedy(model, tokenizer, PROMPTS[:3], 4, 2, "test")


def test_no_prompts_give_no_answers(loaded):
    assert greedy(*loaded, [], 4, 2, "test") == []
