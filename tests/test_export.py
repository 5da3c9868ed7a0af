"""What is handed on computes what was measured: the export of an adapter, of all weights, and merged."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages import prepare
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_sums
from stages.lib.base.params import load_params
from stages.lib.model import merging
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.train.training import add_lora, save
from tests.conftest import write_params
from tools import export

MODULES = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture
def tuned(workspace, tiny_models, monkeypatch):
    """Prepared data and models/tuned, an adapter or all weights of a tiny Qwen2 whose output layer is the embedding."""
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    monkeypatch.setattr(sys, "argv", ["prepare"])

    def make(modules=MODULES, size=0.3, **changes):
        write_params(workspace, model__name="./tiny", data__test_rows=4, data__hazard_rows=14, **changes)
        prepare.main()
        params, source = load_params(), Source("./tiny", None)
        model = load_base(source, "none", "float32")
        if params.lora.enabled:
            model = add_lora(model, params.lora.model_copy(update={"target_modules": modules}), 3, "./tiny", None)
        torch.manual_seed(1)
        for name, weight in model.named_parameters():
            if "lora_B" in name or "down_proj" in name:
                torch.nn.init.normal_(weight, std=size)
        save(model, load_tokenizer(source), workspace / "models/tuned", params.model.dtype)
        write_sums(workspace / "models/tuned")
        return params

    return make


FORMATS = [("none", "float32"), ("none", "bfloat16"), ("nf4", "bfloat16")]


@pytest.mark.parametrize(("quantization", "dtype"), FORMATS)
def test_a_merged_model_is_the_measured_one_up_to_its_numbers_format(tuned, quantization, dtype):
    params = tuned(model__quantization=quantization, model__dtype=dtype)
    said = export.merge(params, Path("out"))
    far, moved, form = map(float, re.findall(r"([0-9.]+)%", said))
    assert moved > 20
    assert far < (0.01 if dtype == "float32" else 10 if quantization == "none" else 100)
    assert (form < 0.01) == (dtype == "float32")
    assert AutoModelForCausalLM.from_pretrained("out").dtype == getattr(torch, dtype)


@pytest.mark.filterwarnings("ignore:Model has")
def test_an_adapter_on_a_tied_output_layer_is_refused_by_name_before_anything_loads(tuned, monkeypatch):
    with pytest.raises(BadInput, match=r"'lm_head' is the embedding as well .* there is \['down_proj', 'gate_proj'"):
        tuned(["q_proj", "lm_head"], model__quantization="none")
    monkeypatch.setattr("stages.lib.train.training.tied", lambda model: set())  # as it was trained before
    params = tuned(["q_proj", "lm_head"], model__quantization="none", model__dtype="float32")
    assert "logits are those of the measured model" in export.copy(params, Path("adapter"))
    monkeypatch.setattr("stages.lib.model.models.load_base", None)
    with pytest.raises(BadInput, match="its adapter is on lm_head, whose weight the model has in its embedding"):
        export.merge(params, Path("out"))


@pytest.mark.filterwarnings("ignore:Model (has|with)")
def test_what_merging_changes_is_found_by_what_the_model_computes(tuned, monkeypatch):
    monkeypatch.setattr("stages.lib.train.training.tied", lambda model: set())
    monkeypatch.setattr(merging, "check_mergeable", lambda folder, adapter: None)
    params = tuned(["q_proj", "lm_head"], model__quantization="none", model__dtype="float32")
    with pytest.raises(BadInput, match=r"merged into its model it computes something else: logits .* apart"):
        export.merge(params, Path("out"))


def test_a_tuning_that_16_bits_would_round_away_is_refused(tuned):
    small = {"size": 1e-3, "model__quantization": "none"}
    with pytest.raises(BadInput, match=r"rounded to torch\.bfloat16, its weights are no nearer to the tuned model"):
        export.merge(tuned(**small, model__dtype="bfloat16"), Path("out"))
    export.merge(tuned(**small, model__dtype="float32"), Path("whole"))


def test_what_was_measured_with_another_adapter_is_found(tuned, monkeypatch):
    params = tuned(model__quantization="none", model__dtype="float32")
    merge = merging.merge

    def of_another(base, adapter, *more):
        shutil.copytree(adapter, "another")
        settings = Path("another/adapter_config.json")
        settings.write_text(settings.read_text().replace('"lora_alpha": 16', '"lora_alpha": 32'))
        return merge(base, Path("another"), *more)

    monkeypatch.setattr(merging, "merge", of_another)
    with pytest.raises(BadInput, match="computes something else than was measured"):
        export.merge(params, Path("out"))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_copy_is_the_measured_model_to_the_bit_or_refused(tuned, monkeypatch, enabled):
    params = tuned(lora__enabled=enabled, model__quantization="none")
    assert "logits are those of the measured model" in export.copy(params, Path("out"))
    copytree = shutil.copytree

    def another(source, target):
        copytree(source, target)
        weights = next(target.glob("*.safetensors"))
        with weights.open("r+b") as file:
            file.seek(-3000, 2)
            file.write(b"\x3f" * 64)
        write_sums(target)

    monkeypatch.setattr(shutil, "copytree", another)
    with pytest.raises(BadInput, match="of their spread from the measured model's"):
        export.copy(params, Path("other"))


def test_what_ended_turns_when_it_was_measured_ends_them_where_it_goes(tuned, workspace):
    settings = workspace / "tiny/generation_config.json"
    settings.write_text(settings.read_text().replace('"eos_token_id": 2', '"eos_token_id": 0'))
    params = tuned(model__quantization="none")
    export.merge(params, Path("out"))
    assert AutoModelForCausalLM.from_pretrained("out").generation_config.eos_token_id == [0, 2]
