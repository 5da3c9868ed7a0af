"""Llama Guard's and Qwen3Guard's protocols run through a real (small, random) model from end to end."""

import math

import pytest
import torch

from stages.lib.base.sections import Judge
from stages.lib.generate.engine import Engine
from stages.lib.judge.guards import llama_guard_prompt
from stages.lib.judge.safeguard import ask_llama_guard, ask_qwen3guard, load_guard
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.prompts.chat import turn_end
from tests.judge.test_guards import TEMPLATES

PAIRS = [(f"question {n}", f"response {n}") for n in range(5)]


def templated(tokenizer, name: str):
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


@pytest.mark.parametrize(
    ("name", "end"), [("llama_guard_3_8b", "<|eot_id|>"), ("llama_guard_3_1b", None), ("qwen3guard_gen", "<|im_end|>")]
)
def test_a_guards_turn_ends_as_its_own_template_ends_turns(tiny_models, name, end):
    tokenizer = templated(load_tokenizer(Source(str(tiny_models["llama"]), None)), name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|begin_of_text|>", "<|eot_id|>"]})
    assert turn_end(tokenizer) == (tokenizer.convert_tokens_to_ids(end) if end else None)


@pytest.fixture
def guard(tiny_models):
    source = Source(str(tiny_models["llama"]), None)
    return load_base(source, "none", "float32"), templated(load_tokenizer(source), "llama_guard_3_8b")


def test_the_score_is_the_first_tokens_probability(guard):
    model, tokenizer = guard
    safe, unsafe = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("safe", "unsafe"))
    with torch.no_grad():
        model.lm_head.weight[[safe, unsafe]] *= 50  # so that one of the two is always the most probable
    got = ask_llama_guard(Engine(model, tokenizer, 2), PAIRS, "test")
    judged = 0
    for (prompt, response), (reading, p_unsafe) in zip(PAIRS, got, strict=True):
        ids = tokenizer(llama_guard_prompt(tokenizer, prompt, response), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        if int(logits.argmax()) not in (safe, unsafe):
            assert (reading.label, p_unsafe) == ("unparsed", None)
            continue
        judged += 1
        # what follows is noise, so there are no categories; the first token alone decides
        assert (reading.label, reading.categories) == ("unsafe" if int(logits.argmax()) == unsafe else "safe", [])
        assert p_unsafe == pytest.approx(torch.softmax(logits[[safe, unsafe]], 0)[1].item(), abs=1e-4)
        assert math.isfinite(p_unsafe)
    assert judged == len(PAIRS)


def test_a_random_qwen3guard_is_unparsed_never_safe(tiny_models):
    settings = Judge(
        protocol="qwen3guard",
        model=str(tiny_models["qwen2"]),
        revision=None,
        quantization="none",
        batch_size=3,
        controversial="unsafe",
        max_unparsed=0.03,
    )
    guard = load_guard(settings)
    templated(guard.tokenizer, "qwen3guard_gen")
    readings = ask_qwen3guard(guard, PAIRS, "test")
    assert [reading.label for reading in readings] == ["unparsed"] * len(PAIRS)


def test_no_pairs_need_no_answers(guard):
    assert ask_llama_guard(Engine(*guard, 2), [], "test") == []
