"""Linear layers laid out for the CPU's matrix kernels compute what they computed before."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from stages.lib.base.params import parse_params
from stages.lib.model import device, linear
from stages.lib.model.device import computed_in
from stages.lib.model.linear import LaidOut, lay_out
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source
from stages.lib.train.training import add_lora
from tests.conftest import ARCHITECTURES, params_values

IDS = torch.arange(5, 60)[None]


@pytest.fixture(params=ARCHITECTURES)
def plain(tiny_models, request):
    return load_base(Source(str(tiny_models[request.param]), None), "none", "float32")


@torch.no_grad()
def test_the_logits_are_the_same(plain):
    laid_out = lay_out(copy.deepcopy(plain))
    layers = [module for module in laid_out.modules() if isinstance(module, LaidOut)]
    assert len(layers) == 7 * plain.config.num_hidden_layers + 1  # and the output layer
    assert not [module for module in laid_out.modules() if type(module) is torch.nn.Linear]
    assert torch.allclose(laid_out(IDS).logits, plain(IDS).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_adapter_goes_into_the_layers_and_can_be_switched_off(plain):
    untuned = plain(IDS).logits
    model = add_lora(plain, parse_params(params_values(), "params.yaml").lora, 5, "./tiny", None).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    tuned = model(IDS).logits
    laid_out = lay_out(copy.deepcopy(model))
    projection = laid_out.base_model.model.model.layers[0].self_attn.q_proj
    assert type(projection.base_layer) is LaidOut
    assert not torch.allclose(tuned, untuned, atol=0.1)
    assert torch.allclose(laid_out(IDS).logits, tuned, atol=1e-3)
    with laid_out.disable_adapter():
        assert torch.allclose(laid_out(IDS).logits, untuned, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("other", [{"use_dora": True}, {"lora_bias": True}])
def test_an_adapter_that_is_more_than_lora_stays_as_it_is(plain, other):
    model = get_peft_model(
        plain, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, **other)
    )
    expected = model.eval()(IDS).logits
    laid_out = lay_out(copy.deepcopy(model))
    assert "forward" not in vars(laid_out.base_model.model.model.layers[0].self_attn.q_proj)
    assert torch.allclose(laid_out(IDS).logits, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_16_bits_are_laid_out_where_the_cpu_computes_in_them(plain, monkeypatch):
    plain = plain.bfloat16()
    expected, rounding = plain(IDS).logits, torch.finfo(torch.bfloat16).eps
    for served in (False, linear.has_16_bits()):
        monkeypatch.setattr(linear, "has_16_bits", lambda served=served: served)
        laid_out = lay_out(copy.deepcopy(plain))
        assert any(isinstance(module, LaidOut) for module in laid_out.modules()) == served
        close = 4 * rounding * expected.abs().max().item()
        assert torch.allclose(laid_out(IDS).logits.float(), expected.float(), atol=close)


@pytest.mark.parametrize(("has_16_bits", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_a_cpu_without_16_bits_computes_in_float32(monkeypatch, tiny_models, has_16_bits, dtype):
    monkeypatch.setattr(device, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(linear, "has_16_bits", lambda: has_16_bits)
    assert (computed_in("bfloat16"), computed_in("float32")) == (dtype, "float32")
    assert load_base(Source(str(tiny_models["qwen2"]), None), "none", "bfloat16").dtype == getattr(torch, dtype)
