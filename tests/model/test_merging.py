"""Merging, in small: weights used twice, how far two models are apart, what was written against what is read."""

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.model.merging import apart, check_same, logits, tied
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source


@pytest.mark.parametrize(("name", "expected"), [("llama", set()), ("qwen2", {"embed_tokens", "lm_head"})])
def test_a_weight_that_is_used_twice_is_found_also_in_four_bits(tiny_models, name, expected):
    for quantization in ("none", "nf4"):
        assert tied(load_base(Source(str(tiny_models[name]), None), quantization, "float32")) == expected


def test_models_are_apart_by_what_decides_a_token(tiny_models):
    model = load_base(Source(str(tiny_models["llama"]), None), "none", "float32")
    before = logits(model, [list(range(5, 40)), [5, 6]])
    assert before.shape[0] == 16 + 2
    assert apart(before, before) == 0
    model.lm_head.bias = torch.nn.Parameter(torch.full((model.config.vocab_size,), 7.0))  # the same for every token
    assert apart(before, logits(model, [list(range(5, 40)), [5, 6]])) < 1e-5
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    assert apart(before, logits(model, [list(range(5, 40)), [5, 6]])) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("change", [{"b": None}, {"c": [1.0]}, {"b": [1.1]}, {"b": [1.0, 1.0]}])
def test_what_is_read_is_what_was_written_to_the_bit(tmp_path, change):
    made = {"a": torch.ones(1), "b": torch.ones(1)}
    loaded = {**made, **{name: values and torch.tensor(values) for name, values in change.items()}}
    check_same(made, dict(made), tmp_path)
    with pytest.raises(BadInput, match="written and loaded again, [bc] is another"):
        check_same(made, {name: weight for name, weight in loaded.items() if weight is not None}, tmp_path)
