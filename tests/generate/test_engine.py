"""Decoding over a shared prefix against transformers' own `generate`, in float32, on random models."""

import random
import subprocess
import sys

import pytest
import torch
from transformers import GenerationConfig

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem
from stages.lib.generate import decoding, engine
from stages.lib.generate.engine import Engine, drawn, end_tokens, greedy, next_token
from stages.lib.model.attention import NAME, attend, attend_plainly, shared_prefix, use_attention
from stages.lib.model.linear import LaidOut
from stages.lib.model.models import load_base, load_for_generation
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.prompts.chat import math_messages, render_prompt
from stages.lib.train.training import add_lora
from tests.conftest import ARCHITECTURES, ROOT, params_values

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SHOTS = [Problem(id=f"s{n}", question=f"How much is {n} and {n}?", answer=f"#### {2 * n}", gold="0") for n in range(4)]
LIMIT = 12


def questions(tokenizer, count: int, shots: int) -> list[str]:
    """Rendered prompts of many lengths behind the same examples."""
    texts = [" ".join(WORDS[n % 10 : n % 10 + n % 7 + 1]) + f" {n}" for n in range(count)]
    return [render_prompt(tokenizer, math_messages(text, SHOTS[:shots])) for text in texts]


def generated(model, tokenizer, prompts: list[str], limit: int) -> list[list[int]]:
    """What transformers' generate writes after each prompt alone."""
    ends = sorted(end_tokens(model, tokenizer))
    settings = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=ends, pad_token_id=0)
    out = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        out.append(written[0, ids.shape[1] :].tolist())
    return out


def check(model, tokenizer, prompts, limit, batch_size):
    ends = end_tokens(model, tokenizer)
    wanted = generated(model, tokenizer, prompts, limit)
    got = greedy(Engine(model, tokenizer, batch_size), prompts, limit, "test")
    for tokens, generation in zip(wanted, got, strict=True):
        stopped = tokens[-1] in ends
        assert generation.text == tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True)
        assert (generation.finish, generation.tokens) == ("stop" if stopped else "length", len(tokens))
    return wanted


@pytest.fixture(scope="module", params=ARCHITECTURES)
def loaded(request, tiny_models):
    """A random model whose turns end: every ninth token of its vocabulary counts as an end."""
    source = Source(str(tiny_models[request.param]), None)
    model, tokenizer = load_base(source, "none", "float32"), load_tokenizer(source)
    model.generation_config.eos_token_id = [2, *range(100, len(tokenizer), 9)]
    return model, tokenizer


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 7, 40, 64])
def test_tokens_are_those_of_generate_at_any_batch_size(loaded, shots, batch_size, monkeypatch):
    monkeypatch.setattr(decoding, "PREFILL", 200)  # several passes to take in new rows
    model, tokenizer = loaded
    wanted = check(model, tokenizer, questions(tokenizer, 64, shots), LIMIT, batch_size)
    lengths = {len(tokens) for tokens in wanted}
    assert LIMIT in lengths
    assert len(lengths) > 3  # rows leave at different times


def test_prompts_that_are_the_prefix_and_one_token(loaded):
    model, tokenizer = loaded
    prompts = [f"The same beginning for all of them:{word}" for word in (" a", " b", " c", " d", " e")]
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    assert shared_prefix(ids) == len(ids[0]) - 1 == len(ids[4]) - 1
    check(model, tokenizer, prompts, LIMIT, 2)


@pytest.mark.parametrize(
    "prompts",
    [["Alone"], ["Twice", "Twice"], ["a", "a b", "a b c d"], ["Nothing", "in", "common"]],
    ids=["one", "equal", "each the beginning of the next", "no prefix"],
)
def test_odd_sets_of_prompts(loaded, prompts):
    check(*loaded, prompts, LIMIT, 2)


def test_a_limit_of_one_token(loaded):
    model, tokenizer = loaded
    wanted = check(model, tokenizer, questions(tokenizer, 9, 1), 1, 4)
    assert {len(tokens) for tokens in wanted} == {1}


def test_a_turn_ends_where_the_template_ends_it_whatever_the_settings_say(tiny_models):
    """The template writes <|im_end|>, tokenizer and model name <|endoftext|>: texts would run on into the next turn."""
    source = Source(str(tiny_models["llama"]), None)
    model, tokenizer = load_base(source, "none", "float32"), load_tokenizer(source)
    tokenizer.eos_token, model.generation_config.eos_token_id = "<|endoftext|>", 0
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end_tokens(model, tokenizer) == {0, end}
    tokenizer.eos_token = model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == {end}
    model.lm_head.bias = torch.nn.Parameter(1e6 * torch.eye(len(tokenizer))[end])  # it ends its turn at once
    (text,) = greedy(Engine(model, tokenizer, 1), ["Hello"], LIMIT, "test")
    assert (text.text, text.finish, text.tokens) == ("", "stop", 1)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_with_an_adapter_on(tiny_models, tmp_path, quantization):
    source = Source(str(tiny_models["qwen2"]), None)
    tokenizer = load_tokenizer(source)
    params = parse_params(params_values(), "params.yaml")
    trained = add_lora(load_base(source, "none", "float32"), params.lora, 5, "./tiny", None)
    for name, weight in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    trained.save_pretrained(tmp_path)
    model = load_for_generation(source, quantization, "float32", tmp_path)
    prompts = questions(tokenizer, 16, 2)
    check(model, tokenizer, prompts, LIMIT, 8)
    plain = load_for_generation(source, quantization, "float32")
    with_it, without = (greedy(Engine(each, tokenizer, 8), prompts, LIMIT, "test") for each in (model, plain))
    assert with_it != without


def test_four_bit_weights_written_out_are_the_ones_bitsandbytes_computes_with(tiny_models):
    source = Source(str(tiny_models["llama"]), None)
    packed, written = load_base(source, "nf4", "float32").train(), load_for_generation(source, "nf4", "float32")
    assert type(packed.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    assert type(written.model.layers[0].mlp.up_proj) is LaidOut
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():  # in training mode: in evaluation, bitsandbytes computes in bf16 on some CPUs
        assert torch.allclose(packed(ids).logits, written(ids).logits, atol=1e-4, rtol=1e-4)


def test_no_slot_idles_while_prompts_wait(loaded, monkeypatch):
    monkeypatch.setattr(decoding, "PREFILL", 100)  # filling takes several passes
    active = []
    advance = decoding.Rows.advance
    monkeypatch.setattr(decoding.Rows, "advance", lambda rows: active.append(len(rows.lengths)) or advance(rows))
    model, tokenizer = loaded
    monkeypatch.setattr(engine, "fitting", lambda *_: 20)  # a third of the batch fits
    greedy(Engine(model, tokenizer, 60), questions(tokenizer, 60, 1), LIMIT, "test")
    assert active[0] == 20
    assert min(active[: len(active) // 2]) > 20 * (1 - decoding.REFILL)


def test_the_models_own_attention_is_put_back(loaded):
    model, tokenizer = loaded
    before = model.config._attn_implementation
    greedy(Engine(model, tokenizer, 2), ["a", "b"], 2, "test")
    assert model.config._attn_implementation == before != NAME
    with pytest.raises(BadInput), use_attention(model, NAME):
        raise BadInput("stopped in between")
    assert model.config._attn_implementation == before


def test_layers_that_see_only_a_window_are_refused(loaded, monkeypatch):
    model, tokenizer = loaded
    monkeypatch.setattr(model.config, "layer_types", ["full_attention", "sliding_attention"], raising=False)
    with pytest.raises(
        BadInput, match="layers of kind full_attention, sliding_attention; only full attention is known"
    ):
        greedy(Engine(model, tokenizer, 2), ["a"], 2, "test")


def test_a_model_whose_attention_cannot_be_replaced_is_refused(loaded):
    from transformers import GPTJConfig, GPTJForCausalLM

    config = GPTJConfig(vocab_size=50000, n_embd=32, n_layer=1, n_head=2, rotary_dim=8)
    with pytest.raises(BadInput, match="gptj: its attention cannot be replaced"):
        greedy(Engine(GPTJForCausalLM(config), loaded[1], 2), ["a"], 2, "test")


@pytest.mark.parametrize(("causal", "masked"), [(False, False), (True, False), (False, True)])
def test_both_ways_to_attend_agree(causal, masked):
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 2, 9, 16), torch.randn(3, 2, 9, 16), torch.randn(3, 2, 9, 16)
    mask = None
    if masked:
        mask = torch.zeros(3, 1, 9, 9).masked_fill(
            torch.arange(9) > torch.tensor([2, 8, 5])[:, None, None, None], -torch.inf
        )
    wanted, wanted_total = attend_plainly(query, key, value, 0.3, causal, mask)
    got, total = attend(query, key, value, 0.3, causal, mask)
    assert torch.allclose(got, wanted, atol=1e-6)
    assert torch.allclose(total, wanted_total, atol=1e-5)


def test_large_scores_are_not_rounded_to_sixteen_bits():
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, 2, 30, 64) for _ in range(3))
    query, key = query + 8, key + 8  # scores about 4,000, where bf16 counts in steps of 16
    parts = [part.bfloat16() for part in (query, key, value)]
    wanted, wanted_total = attend_plainly(*(part.float() for part in parts), 0.125)
    for way in (attend, attend_plainly):
        got, total = way(*parts, 0.125)
        assert (got.float() - wanted).abs().max() < 0.02
        assert (total - wanted_total).abs().max() < 0.1


def test_other_devices_write_the_same_tokens(loaded, monkeypatch):
    """The attention of every device but the CPU, here on the CPU."""
    monkeypatch.setattr("stages.lib.model.attention.attend", attend_plainly)
    model, tokenizer = loaded
    check(model, tokenizer, questions(tokenizer, 20, 2), LIMIT, 8)


def test_a_models_own_sampling_and_penalty_are_not_followed(tiny_models):
    from transformers import AutoModelForCausalLM

    own = AutoModelForCausalLM.from_pretrained(tiny_models["qwen2"]).generation_config
    assert (own.do_sample, own.repetition_penalty) == (True, 1.5)
    used = load_base(Source(str(tiny_models["qwen2"]), None), "none", "float32").generation_config
    assert not used.do_sample
    assert used.repetition_penalty in (None, 1.0)
    assert used.eos_token_id == 2


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_next_token_gives_the_probabilities_of_each_prompt_alone(loaded, batch_size):
    model, tokenizer = loaded
    prompts = questions(tokenizer, 10, 2)
    got = next_token(Engine(model, tokenizer, batch_size), prompts, [5, 9], "test")
    for prompt, (best, logs) in zip(prompts, got, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])).logits[0, -1]
        assert best == int(logits.argmax())
        assert logs == pytest.approx(torch.log_softmax(logits, -1)[[5, 9]].tolist(), abs=1e-4)


def test_a_prompt_longer_than_the_context_is_refused(loaded, monkeypatch):
    model, tokenizer = loaded
    monkeypatch.setattr(model.config, "max_position_embeddings", 12)
    prompts = ["Hello", "Two and two", " ".join(WORDS)]
    with pytest.raises(BadInput, match=r"prompt 3 takes \d+ tokens, but the model's context holds 12"):
        greedy(Engine(model, tokenizer, 2), prompts, 4, "test")


def test_no_prompts_give_no_answers(loaded):
    assert greedy(Engine(*loaded, 2), [], 4, "test") == []
    assert next_token(Engine(*loaded, 2), [], [5], "test") == []


SCARCE = """
import resource, sys
import torch
from stages.lib.generate.engine import Engine, greedy
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
torch.set_num_threads(1)
source = Source(sys.argv[1], None)
model, tokenizer = load_base(source, "none", "float32"), load_tokenizer(source)
prompts = [f"Count to {n}" for n in range(64)]
greedy(Engine(model, tokenizer, 4), prompts[:4], 4, "enough")  # few: what it frees is kept, and would count as room
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20, -1))
model.generation_config.eos_token_id = list(range(model.config.vocab_size))  # every answer is one token long
short = greedy(Engine(model, tokenizer, 64), prompts, 1900, "scarce")
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert [row.tokens for row in short] == [1] * 64
assert short == greedy(Engine(model, tokenizer, 1), prompts, 1900, "alone")
"""


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited through Linux's RLIMIT_AS")
def test_fewer_rows_are_taken_when_memory_runs_out(tiny_models, record_property):
    command = [sys.executable, "-c", SCARCE, str(tiny_models["llama"])]
    result = subprocess.run([*command, "40"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "scarce: out of memory; going on with 32 rows at a time" in result.stderr
    record_property("tried", "generation: an allocation fails (RLIMIT_AS)")
    record_property("outcome", "goes on with half the rows at a time, the same answers as one by one")


def test_one_row_at_a_time_is_the_least(loaded, monkeypatch, capsys):
    tried = []

    def exhausted(config, slots, *_):
        tried.append(slots)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(engine, "fitting", lambda model, asked, slots: slots)
    monkeypatch.setattr(decoding, "Rows", exhausted)
    with pytest.raises(BadInput, match="test: not enough memory for one prompt at a time"):
        greedy(Engine(*loaded, 5), ["a", "b", "c", "d", "e"], 2, "test")
    assert tried == [5, 3, 2, 1]
    assert "going on with 3 rows at a time" in capsys.readouterr().err


def test_rows_that_would_not_fit_into_free_memory_are_not_tried(loaded, monkeypatch):
    model, _ = loaded
    asked = decoding.Prompts([1, 2], [[3] * 20] * 50, limit=12)
    one = decoding.Rows(model.config, 1, 32, model.dtype, torch.device("meta")).bytes()
    monkeypatch.setattr(decoding, "free_memory", lambda device: 20 * one)
    assert engine.fitting(model, asked, 50) == 13  # 25 would be more than four fifths of it


@pytest.mark.parametrize("batch_size", [3, 64])
def test_drawn_tokens_are_those_of_their_seed_whatever_is_drawn_beside_them(loaded, batch_size, tmp_path):
    """Against each text alone, its tokens drawn one by one from transformers' own logits."""
    model, tokenizer = loaded
    asked = [prompt for prompt in questions(tokenizer, 5, 2) for _ in range(3)]
    seeds = [f"1126/{n}" for n in range(len(asked))]
    got = drawn(Engine(model, tokenizer, batch_size, tmp_path), asked, LIMIT, "test", 3.0, seeds)
    ends = end_tokens(model, tokenizer)
    for prompt, seed, text in zip(asked, seeds, got, strict=True):
        ids, rng, written = tokenizer(prompt, add_special_tokens=False)["input_ids"], random.Random(seed), []
        while len(written) < LIMIT and not ends & set(written):
            with torch.no_grad():
                chances = (model(torch.tensor([ids + written])).logits[0, -1].double() / 3.0).softmax(-1)
            point, token = rng.random(), 0
            while point > chances[: token + 1].sum():
                token += 1000 if point > chances[: token + 1000].sum() else 1
            written.append(token)
        stopped = written[-1] in ends
        said = tokenizer.decode(written[:-1] if stopped else written, skip_special_tokens=True)
        assert (text.text, text.finish, text.tokens) == (said, "stop" if stopped else "length", len(written))
    assert len({text.text for text in got}) > 12  # the same prompt, another seed, another text
    assert drawn(Engine(model, tokenizer, batch_size, tmp_path), asked, LIMIT, "test", 3.0, seeds) == got
    other = drawn(Engine(model, tokenizer, batch_size, tmp_path), asked, LIMIT, "test", 3.0, seeds[::-1])
    assert other != got


def test_each_token_is_drawn_as_often_as_it_is_probable():
    logits = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]])
    points = [(n + 0.5) / 1000 for n in range(1000)]
    found = decoding._draw(logits.expand(1000, -1), 0.5, points)
    for token, chance in enumerate((logits[0] / 0.5).softmax(-1).tolist()):
        assert found.count(token) == pytest.approx(1000 * chance, abs=1)
    with pytest.raises(BadInput, match="computes nan"):
        decoding._draw(torch.full((1, 4), torch.nan), 0.5, [0.5])
