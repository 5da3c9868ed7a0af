"""How far a tuned model has moved, against the plain formula on all logits of two models."""

import pytest
import torch

from stages.lib.generate import moved
from stages.lib.generate.moved import divergences
from stages.lib.model.linear import lay_out
from stages.lib.model.models import load_base, load_for_generation
from stages.lib.model.sources import Source
from tests.conftest import ARCHITECTURES, with_adapter

TEXTS = [([5, 6, 7], [8, 9, 10, 11]), ([5, 6], []), ([5], [300 + n for n in range(40)])]


def plainly(untuned, tuned, prompt, answer):
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        old, new = (model(ids).logits[0, len(prompt) - 1 : -1].double().softmax(-1) for model in (untuned, tuned))
    return (old * (old / new).log()).nan_to_num().sum(-1).mean().item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["q_proj", "lm_head"]])
def test_an_adapter_on_and_off_is_the_tuned_and_the_untuned_model(tiny_models, architecture, targets, monkeypatch):
    monkeypatch.setattr(moved, "PIECE", 7)
    monkeypatch.setattr("stages.lib.train.training.tied", lambda model: set())  # as another tool may train
    untuned = load_base(Source(str(tiny_models[architecture]), None), "none", "float32")
    model = with_adapter(tiny_models[architecture], target_modules=targets).eval()
    wanted = [plainly(untuned, model, *text) if text[1] else None for text in TEXTS]
    found = divergences(lay_out(model), None, TEXTS)
    assert found[1] is None
    assert found[0] > 0.01
    assert [found[0], found[2]] == pytest.approx([wanted[0], wanted[2]], rel=1e-4, abs=1e-6)


def test_tuned_weights_are_compared_with_the_untuned_model_beside_them(tiny_models):
    source = Source(str(tiny_models["llama"]), None)
    untuned, model = load_base(source, "none", "float32"), load_base(source, "none", "float32")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.3)
    wanted = plainly(untuned, model, *TEXTS[2])
    found = divergences(lay_out(model), load_for_generation(source, "none", "float32"), TEXTS)
    assert found[2] == pytest.approx(wanted, rel=1e-4)
    same = load_for_generation(source, "none", "float32")
    assert divergences(same, load_for_generation(source, "none", "float32"), TEXTS) == [0.0, None, 0.0]


def test_what_was_compared_is_not_compared_again(tiny_models, tmp_path, monkeypatch):
    model = with_adapter(tiny_models["llama"]).eval()
    found = divergences(model, None, TEXTS, tmp_path)
    monkeypatch.setattr(moved, "_divergence", None)
    assert divergences(model, None, TEXTS, tmp_path) == found
