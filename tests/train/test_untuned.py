"""What the untuned model makes of training rows: losses against transformers' own, and which tokens stay counted."""

import math

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem
from stages.lib.model.models import load_base, load_for_generation
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.train import material, untuned
from stages.lib.train.encoding import encode
from stages.lib.train.packing import IGNORED
from stages.lib.train.training import add_lora, train
from stages.lib.train.untuned import mask, perplexity, token_losses
from tests.conftest import ARCHITECTURES, params_values, with_adapter

PROBLEMS = [
    Problem(
        id=f"r{n}", question=f"What is {n} {'and more ' * (n % 4)}and {n}?", answer=f"{2 * n}\n#### {2 * n}", gold="0"
    )
    for n in range(2, 13)
]
SHOTS, ROWS = PROBLEMS[:3], PROBLEMS[3:]


def rows_and_model(folder, shots=3, loss="answer"):
    source = Source(str(folder), None)
    tokenizer = load_tokenizer(source)
    rows = [encode(tokenizer, row, SHOTS[:shots], loss) for row in ROWS]
    return rows, load_for_generation(source, "none", "float32"), load_base(source, "none", "float32")


def plainly(model, row):
    """Each token's loss, the row in a pass of its own, through transformers' own attention and all logits."""
    ids = torch.tensor(row["input_ids"])
    with torch.no_grad():
        logits = model(ids[None]).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shots", [3, 0])
def test_losses_are_those_of_each_row_alone(tiny_models, architecture, shots, monkeypatch):
    rows, model, plain = rows_and_model(tiny_models[architecture], shots)
    monkeypatch.setattr("stages.lib.train.untuned.CAPACITY", 300)
    monkeypatch.setattr("stages.lib.train.untuned.PIECE", 7)
    found = token_losses(model, rows)
    for row, losses in zip(rows, found, strict=True):
        assert losses == pytest.approx(plainly(plain, row), rel=1e-5, abs=1e-5)
    assert token_losses(model, rows[:1])[0] == pytest.approx(found[0], rel=1e-5, abs=1e-5)
    assert token_losses(model, []) == []


def test_rows_that_begin_differently_are_scored_too(tiny_models):
    _, model, plain = rows_and_model(tiny_models["llama"])
    rows = [{"input_ids": [n, 7, 8 + n, 9], "labels": [n, 7, 8 + n, 9]} for n in range(20, 24)]
    for row, losses in zip(rows, token_losses(model, rows), strict=True):
        assert losses == pytest.approx(plainly(plain, row), rel=1e-5, abs=1e-5)


def test_what_was_scored_is_not_scored_again(tiny_models, tmp_path, monkeypatch):
    rows, model, _ = rows_and_model(tiny_models["qwen2"])
    monkeypatch.setattr("stages.lib.train.untuned.CAPACITY", 300)
    found = token_losses(model, rows, tmp_path)
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 1
    parts[0].unlink()
    calls, real = [], untuned._losses
    monkeypatch.setattr(untuned, "_losses", lambda *given: calls.append(given) or real(*given))
    assert token_losses(model, rows, tmp_path) == found
    assert len(calls) == 1


def test_tokens_above_the_threshold_carry_no_loss_and_the_others_do():
    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, 7, 8, 9]}
    losses = [9.0, math.log(2.6), math.log(2.4), 0.0]
    assert mask([row], [losses], 2.5) == [{**row, "labels": [IGNORED, IGNORED, IGNORED, 8, 9]}]
    assert mask([row], [losses], 1.0) == [{**row, "labels": [IGNORED] * 4 + [9]}]
    assert mask([row], [losses], 1e9) == [row]
    assert mask([row, row], [[1.0] * 4, losses], 2.5) == mask([row], [losses], 2.5)  # nothing is left of the first
    assert perplexity(row, losses) == pytest.approx((2.6 * 2.4) ** (1 / 3))
    text = {**row, "labels": row["input_ids"]}
    assert mask([text], [losses], 2.5)[0]["labels"] == [5, IGNORED, IGNORED, 8, 9]


def adapter(folder, rows, **changes):
    params = parse_params(params_values(finetune__learning_rate=1e-3, **changes), "params.yaml")
    model = add_lora(load_base(Source(str(folder), None), "none", "float32"), params.lora, 5, "./tiny", None)
    steps = train(model, rows, params.finetune, bf16=False)
    return steps, {name: weight.detach() for name, weight in model.named_parameters() if "lora_" in name}


def test_a_threshold_that_masks_nothing_changes_no_bit_and_one_that_masks_does(tiny_models, tmp_path):
    rows, model, _ = rows_and_model(tiny_models["qwen2"], loss="text")
    asked = material.Engine(model, None, 4, tmp_path)
    same, found = material.without_surprises(asked, rows, 1e60)
    assert (same, found["masked_share"]) == (rows, 0)
    fewer, found = material.without_surprises(asked, rows, 1e5)
    assert 0.1 < found["masked_share"] < 0.95
    assert found["counted_tokens"] == sum(len(row["labels"]) - 1 for row in rows)
    (_, plain), (_, unmasked), (steps, masked) = (adapter(tiny_models["qwen2"], each) for each in (rows, same, fewer))
    assert all(torch.equal(plain[name], unmasked[name]) for name in plain)
    assert not any(torch.equal(plain[name], masked[name]) for name in plain if "lora_B" in name)
    assert all(math.isfinite(step["loss"]) for step in steps)
    with pytest.raises(BadInput, match="every token of every row is more perplexing than 1 to the untuned model"):
        material.without_surprises(asked, rows, 1)


@pytest.mark.parametrize("shots", [3, 0])
def test_loss_and_gradients_of_masked_rows_are_the_plain_formulas(tiny_models, tmp_path, shots):
    """Packed with what is masked in the shared prefix, too, against each row alone with its losses masked by hand."""
    from tests.train.test_packing import gradients, packed_loss

    rows, model, plain = rows_and_model(tiny_models["llama"], shots, loss="text")
    masked, _ = material.without_surprises(material.Engine(model, None, 4, tmp_path), rows, 1e5)
    trained, total, count = with_adapter(tiny_models["llama"]).train(), 0.0, 0
    for row in rows:
        kept = torch.tensor(plainly(plain, row)).exp() <= 1e5
        ids = torch.tensor(row["input_ids"])
        each = torch.nn.functional.cross_entropy(trained(ids[None]).logits[0, :-1], ids[1:], reduction="none")
        total, count = total + each[kept].sum(), count + int(kept.sum())
    wanted = gradients(trained, total / count)
    loss = packed_loss(trained, masked)
    got = gradients(trained, loss)
    assert loss.item() == pytest.approx((total / count).item(), rel=1e-5)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5
