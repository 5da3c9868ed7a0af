"""What a training row holds, what the loss counts and what each setting does: real Trainer, small models."""

import math

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.prompts.chat import math_messages, render_prompt, safety_messages
from stages.lib.train.encoding import encode
from stages.lib.train.packing import IGNORED, divergence
from stages.lib.train.training import add_lora, train
from tests.conftest import ARCHITECTURES, params_values

ROWS = [
    Problem(id=f"r{n}", question=f"What is {n} and {n}?", answer=f"{n}+{n}={2 * n}\n#### {2 * n}", gold="0")
    for n in range(2, 12)
]
SHOTS, ROWS = ROWS[:2], ROWS[2:]


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    return load_tokenizer(Source(str(tiny_models["qwen2"]), None))


def settings(**changes):
    return parse_params(params_values(**changes), "params.yaml")


def adapter(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def tune(folder, tokenizer, quantization="none", bf16=False, **changes):
    """A freshly tuned tiny model: (model, steps, adapter weights before)."""
    params = settings(finetune__batch_size=2, finetune__learning_rate=1e-3, **changes)
    base = load_base(Source(str(folder), None), quantization, "float32")
    model = add_lora(base, params.lora, 5, "./tiny", None) if params.lora.enabled else base
    before = adapter(model)
    rows = [encode(tokenizer, row, SHOTS[: params.fewshot.shots], params.finetune.loss) for row in ROWS]
    return model, train(model, rows, params.finetune, bf16=bf16), before


def test_a_row_is_the_test_prompt_then_the_solution_then_the_end_of_turn(tokenizer):
    row = encode(tokenizer, ROWS[0], SHOTS, "answer")
    prompt = render_prompt(tokenizer, math_messages(ROWS[0].question, SHOTS))
    assert tokenizer.decode(row["input_ids"]) == f"{prompt}A: {ROWS[0].answer}{tokenizer.eos_token}"
    counted = [token for token in row["labels"] if token != IGNORED]
    assert tokenizer.decode(counted) == f"A: {ROWS[0].answer}{tokenizer.eos_token}"
    assert row["input_ids"][-len(counted) :] == counted
    whole = encode(tokenizer, ROWS[0], SHOTS, "text")
    assert whole["labels"] == whole["input_ids"] == row["input_ids"]


def test_the_system_turn_of_training_is_the_one_that_is_said_and_by_default_the_templates_own(tokenizer):
    def prompt(system):
        whole = tokenizer.decode(encode(tokenizer, ROWS[0], SHOTS, "answer", system=system)["input_ids"])
        assert whole == render_prompt(tokenizer, math_messages(ROWS[0].question, SHOTS, system)) + (
            f"A: {ROWS[0].answer}{tokenizer.eos_token}"
        )
        return whole

    assert prompt("Be safe.").startswith("<|im_start|>system\nBe safe.<|im_end|>\n<|im_start|>user\nQ: ")
    assert prompt("").startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\nQ: ")
    assert prompt("Be safe.").count("<|im_start|>system") == 1
    assert prompt(None) not in (prompt(""), prompt("Be safe."))
    assert encode(tokenizer, ROWS[0], SHOTS, "answer", system=None) == encode(tokenizer, ROWS[0], SHOTS, "answer")
    hazard = render_prompt(tokenizer, safety_messages("Hm?", "Be <|im_end|> safe."))
    assert hazard.startswith("<|im_start|>system\nBe < |im_end|> safe.<|im_end|>\n<|im_start|>user\nHm?<|im_end|>")


def test_examples_come_as_turns_and_only_the_question_carries_the_instruction():
    messages = math_messages("How many?", SHOTS)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant", "user"]
    assert messages[0]["content"] == f"Q: {SHOTS[0].question}"
    assert messages[1]["content"] == f"A: {SHOTS[0].answer}"
    instruction = "Let's think step by step. At the end, you MUST write the answer as an integer after '####'."
    assert messages[-1]["content"] == f"Q: How many? {instruction}"
    assert len(math_messages("How many?", [])) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_lora_learns_and_leaves_the_base_alone(tiny_models, tokenizer, architecture, quantization):
    model, steps, before = tune(tiny_models[architecture], tokenizer, quantization, finetune__epochs=6)
    assert len(steps) == 6 * 4
    assert steps[-1]["loss"] < steps[0]["loss"]
    after = adapter(model)
    assert len(after) == 2 * 7 * 2  # A and B, seven projections, two layers
    assert all(not torch.equal(before[name], after[name]) for name in after if "lora_B" in name)
    frozen = [p for name, p in model.named_parameters() if "lora_" not in name]
    assert not any(p.requires_grad for p in frozen)
    kinds = {type(module).__name__ for module in model.modules()}
    assert ("Linear4bit" in kinds) == (quantization == "nf4")
    if quantization == "nf4":
        layer = next(module for module in model.modules() if type(module).__name__ == "Linear4bit")
        assert layer.weight.quant_type == "nf4"
        assert layer.weight.quant_state.nested  # double quantization


def test_dropout_of_one_teaches_nothing(tiny_models, tokenizer):
    model, steps, _ = tune(tiny_models["qwen2"], tokenizer, lora__dropout=1.0, finetune__weight_decay=0.01)
    assert all(math.isfinite(step["loss"]) for step in steps)
    weights = adapter(model)
    assert all(torch.count_nonzero(weight) == 0 for name, weight in weights.items() if "lora_B" in name)


def test_a_misspelt_target_module_is_refused_not_left_out(tiny_models, tokenizer):
    with pytest.raises(BadInput, match="no linear module 'v_porj'"):
        tune(tiny_models["qwen2"], tokenizer, lora__target_modules=["q_proj", "v_porj"])


def test_full_parameter_tuning_moves_every_weight(tiny_models, tokenizer):
    changes = {"lora__enabled": False, "model__quantization": "none"}
    start = load_base(Source(str(tiny_models["llama"]), None), "none", "float32").state_dict()
    model, steps, _ = tune(tiny_models["llama"], tokenizer, finetune__epochs=3, **changes)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(not torch.equal(start[name], weight) for name, weight in model.state_dict().items())


def test_the_schedule_is_cosine_after_a_linear_warm_up(tiny_models, tokenizer):
    _, steps, _ = tune(tiny_models["llama"], tokenizer, finetune__epochs=5, finetune__warmup_ratio=0.2)
    rates = [step["learning_rate"] for step in steps]  # the rate with which each update was made
    assert len(rates) == 20
    assert rates[:5] == pytest.approx([1e-3 * n / 4 for n in range(5)])
    assert rates[4:] == pytest.approx([1e-3 * 0.5 * (1 + math.cos(math.pi * n / 16)) for n in range(16)], abs=1e-9)
    _, cold, _ = tune(tiny_models["llama"], tokenizer, finetune__warmup_ratio=0.0)
    assert cold[0]["learning_rate"] == pytest.approx(1e-3)
    _, flat, _ = tune(tiny_models["llama"], tokenizer, finetune__warmup_ratio=0.0, finetune__schedule="constant")
    assert {step["learning_rate"] for step in flat} == {1e-3}


def test_accumulation_gives_the_update_of_one_large_batch(tiny_models, tokenizer, monkeypatch):
    once, _, _ = tune(tiny_models["llama"], tokenizer)
    split, _, _ = tune(tiny_models["llama"], tokenizer)
    for (name, a), b in zip(adapter(once).items(), adapter(split).values(), strict=True):
        assert torch.equal(a, b), name  # same seed, same bytes
    params = {"finetune__epochs": 1, "finetune__warmup_ratio": 0.0}
    large, steps, _ = tune_as(tiny_models["llama"], tokenizer, 4, 1, **params)
    monkeypatch.setattr("stages.lib.train.packing.CAPACITY", 1)  # a pass for each row
    small, same, _ = tune_as(tiny_models["llama"], tokenizer, 1, 4, **params)
    assert len(steps) == len(same) == 2
    for (name, a), b in zip(adapter(large).items(), adapter(small).values(), strict=True):
        assert torch.allclose(a, b, atol=2e-4), name
    assert [s["loss"] for s in steps] == pytest.approx([s["loss"] for s in same], rel=1e-4)


def tune_as(folder, tokenizer, batch_size, accumulation, **changes):
    params = settings(finetune__batch_size=batch_size, finetune__accumulation=accumulation, **changes)
    model = add_lora(load_base(Source(str(folder), None), "none", "float32"), params.lora, 5, "./tiny", None)
    rows = [encode(tokenizer, row, [], params.finetune.loss) for row in ROWS]
    return model, train(model, rows, params.finetune, bf16=False), None


def moved(folder, tokenizer, model):
    """Mean divergence of a tuned model from the untuned one over the rows' tokens."""
    before, total, count = load_base(Source(str(folder), None), "none", "float32"), 0.0, 0
    for row in (encode(tokenizer, row, [], "text") for row in ROWS):
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            total += divergence(before(ids).logits[0], model.eval()(ids).logits[0]).sum().item()
        count += len(row["input_ids"])
    return total / count


@pytest.mark.parametrize("bf16", [False, True])
def test_a_divergence_in_the_loss_keeps_the_tuned_model_near_the_untuned_one(tiny_models, tokenizer, bf16):
    changes = {"finetune__epochs": 4, "finetune__loss": "text", "fewshot__shots": 2, "finetune__accumulation": 2}
    free, steps, _ = tune(tiny_models["qwen2"], tokenizer, bf16=bf16, **changes)
    held, same, _ = tune(tiny_models["qwen2"], tokenizer, bf16=bf16, finetune__kl=20.0, **changes)
    assert same[0]["loss"] == pytest.approx(steps[0]["loss"], rel=1e-6)  # B is zero: both are the untuned model
    near, far = (moved(tiny_models["qwen2"], tokenizer, model) for model in (held, free))
    assert 0 < near < 0.5 * far
    assert held.active_adapters == ["default"] and all(w.requires_grad for w in adapter_weights(held))


def adapter_weights(model):
    return [weight for name, weight in model.named_parameters() if "lora_" in name]
