"""Models are found or refused by name, adapters fit their base or are refused, and only safetensors are read."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_file
from stages.lib.base.model_files import FILES
from stages.lib.base.params import parse_params
from stages.lib.base.sections import Model
from stages.lib.model.linear import lay_out
from stages.lib.model.models import _load, _pack, computed_in, load_base, load_subject
from stages.lib.model.sources import Source, check_present, find, load_tokenizer
from stages.lib.train.training import add_lora, save
from tests.conftest import ROOT, params_values
from tools.export import weaken


def model_params(folder, **changes) -> Model:
    return Model(**{"name": str(folder), "revision": None, "quantization": "none", "dtype": "float32", **changes})


@pytest.fixture
def adapted(tiny_models, tmp_path):
    """A folder with an adapter for the tiny Qwen2 model whose B is not zero, so that it changes every answer."""
    source = Source(str(tiny_models["qwen2"]), None)
    lora = parse_params(params_values(), "params.yaml").lora
    model = add_lora(load_base(source, "none", "float32"), lora, 3, str(tiny_models["qwen2"]), None)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    save(model, load_tokenizer(source), tmp_path / "tuned", "float32")
    return tmp_path / "tuned"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


def test_a_folder_without_a_model_is_refused_before_anything_loads(tmp_path):
    with pytest.raises(BadInput, match=r"no config\.json there"):
        check_present(f"{tmp_path}/nothing")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BadInput, match=r"no \*\.safetensors there; other weight formats"):
        check_present(str(tmp_path))


def test_a_folder_that_sends_the_library_to_other_weights_is_refused(tiny_models, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_models["qwen2"])}))
    for look in (check_present, lambda name: find(name, None)):
        with pytest.raises(BadInput, match="adapter_config.json there names weights elsewhere"):
            look(str(folder))


def test_a_hub_model_that_cannot_be_reached_is_one_clear_message(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    for load in (load_tokenizer, lambda source: load_base(source, "none", "float32")):
        with pytest.raises(BadInput, match="nobody/nothing: .*cannot be loaded"):
            load(Source("nobody/nothing", "a" * 40))


def test_truncated_weights_are_refused(tiny_models, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(tiny_models["llama"], folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_base(Source(str(folder), None), "none", "float32")


def test_a_subject_is_the_base_with_what_its_folder_holds(tiny_models, adapted, tmp_path):
    params = model_params(tiny_models["qwen2"])
    base, _ = load_subject(params, tmp_path / "base", tuned=False)
    tuned, _ = load_subject(params, adapted, tuned=True)
    plain = load_base(Source(str(tiny_models["qwen2"]), None), "none", "float32")
    assert torch.equal(logits(base), logits(lay_out(plain)))  # else sums come in another order
    assert not torch.allclose(logits(tuned), logits(plain))
    assert not any(parameter.requires_grad for parameter in tuned.parameters() if parameter.dtype == torch.uint8)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_a_strength_is_the_straight_line_from_the_untuned_weights_to_the_tuned_ones(tiny_models, adapted, strength):
    """Against the two models' own weights, interpolated one by one."""
    source = Source(str(tiny_models["qwen2"]), None)
    base = load_base(source, "none", "float32")
    tuned = PeftModel.from_pretrained(load_base(source, "none", "float32"), str(adapted)).merge_and_unload()
    at, _ = load_subject(model_params(tiny_models["qwen2"]), adapted, True, strength)
    assert torch.allclose(
        logits(load_subject(model_params(tiny_models["qwen2"]), adapted, True)[0]), logits(tuned), atol=1e-4
    )
    ends = zip(base.parameters(), tuned.parameters(), strict=True)
    moved = [torch.lerp(old.detach(), new.detach(), strength) for old, new in ends]
    untouched = logits(base)
    with torch.no_grad():
        for weight, value in zip(base.parameters(), moved, strict=True):
            weight.copy_(value)
    assert torch.allclose(logits(at), logits(base), atol=1e-4, rtol=1e-4)
    assert torch.allclose(logits(at), untouched, atol=1e-4) is (strength == 0)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_an_exported_adapter_is_used_at_the_strength_that_it_was_measured_at(tiny_models, adapted, strength):
    wanted = logits(load_subject(model_params(tiny_models["qwen2"]), adapted, True, strength)[0])
    before = {path.name: path.read_bytes() for path in adapted.iterdir()}
    weaken(adapted, strength)
    assert (before == {path.name: path.read_bytes() for path in adapted.iterdir()}) is (strength == 1)
    base = load_base(Source(str(tiny_models["qwen2"]), None), "none", "float32")
    assert torch.allclose(logits(PeftModel.from_pretrained(base, str(adapted))), wanted, atol=1e-4, rtol=1e-4)


def test_full_weights_in_the_folder_replace_the_base(tiny_models, tmp_path):
    source = Source(str(tiny_models["llama"]), None)
    model = load_base(source, "none", "float32")
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1.5)
    save(model, load_tokenizer(source), tmp_path / "full", "float32")
    tuned, _ = load_subject(model_params(tiny_models["llama"]), tmp_path / "full", tuned=True)
    assert torch.equal(logits(tuned), logits(lay_out(model)))


def test_an_adapter_says_its_base_by_name_and_sorted_so_that_its_bytes_are_the_same_everywhere(adapted, tiny_models):
    config = json.loads((adapted / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_models["qwen2"])
    assert config["target_modules"] == sorted(config["target_modules"])


def test_what_is_trained_is_what_the_adapters_file_holds(tiny_models, tmp_path):
    source = Source(str(tiny_models["qwen2"]), None)
    model = add_lora(load_base(source, "none", "float32"), parse_params(params_values(), "p").lora, 3, "./tiny", None)
    write = model.save_pretrained

    def write_and_go_on(folder):
        write(folder)
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).data.fill_(1.0)

    model.save_pretrained = write_and_go_on
    with pytest.raises(BadInput, match=r"tuned: written and loaded again, base_model\..*lora_B\.weight is another"):
        save(model, None, tmp_path / "tuned", "float32")


def test_a_packed_model_that_is_read_back_otherwise_is_not_kept(tiny_models, tmp_path, monkeypatch):
    source = Source(str(tiny_models["llama"]), None)
    _pack(source, "float32", tmp_path / "packed")
    once = _load(source, "nf4", "float32").state_dict()
    once["model.norm.weight"] = once["model.norm.weight"] * 2
    loads = iter([_load(source, "nf4", "float32"), Loaded(once)])
    monkeypatch.setattr("stages.lib.model.models._load", lambda *_: next(loads))
    with pytest.raises(BadInput, match=r"model\.norm\.weight is another"):
        _pack(source, "float32", tmp_path / "again")


class Loaded:
    def __init__(self, weights):
        self.state_dict = lambda: weights


def test_an_adapter_for_another_base_or_in_another_format_is_refused(tiny_models, adapted):
    with pytest.raises(BadInput, match="this adapter was made for .* but params.yaml names"):
        load_subject(model_params(tiny_models["llama"]), adapted, tuned=True)
    (adapted / "adapter_model.safetensors").rename(adapted / "adapter_model.bin")
    with pytest.raises(BadInput, match="other weight formats"):
        load_subject(model_params(tiny_models["qwen2"]), adapted, tuned=True)


def test_a_tuned_subject_with_nothing_in_its_folder_is_refused_not_measured_as_the_base(tiny_models, tmp_path):
    with pytest.raises(BadInput, match="run the finetune stage first"):
        load_subject(model_params(tiny_models["qwen2"]), tmp_path / "tuned", tuned=True)


def test_damaged_adapters_are_refused(tiny_models, adapted):
    from safetensors.torch import load_file, save_file

    params, weights = model_params(tiny_models["qwen2"]), adapted / "adapter_model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    save_file(dict(list(tensors.items())[:-1]), weights)
    with pytest.raises(BadInput, match="missing adapter keys"):
        load_subject(params, adapted, tuned=True)
    weights.write_bytes(whole[:2000])
    with pytest.raises(BadInput, match="the adapter cannot be loaded"):
        load_subject(params, adapted, tuned=True)
    weights.write_bytes(whole)
    for text in ("{", "[1]", ""):
        (adapted / "adapter_config.json").write_text(text)
        with pytest.raises(BadInput, match=r"adapter_config\.json: not a JSON object"):
            load_subject(params, adapted, tuned=True)


def test_weights_that_lack_a_tensor_and_code_that_comes_along_are_refused(tiny_models, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "holes"
    shutil.copytree(tiny_models["llama"], folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match="the weights lack"):
        load_base(Source(str(folder), None), "none", "float32")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_base(Source(str(folder), None), "none", "float32")


def test_a_model_without_a_chat_template_is_refused(tiny_models, tmp_path):
    folder = tmp_path / "mute"
    shutil.copytree(tiny_models["llama"], folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BadInput, match="no chat template"):
        load_tokenizer(Source(str(folder), None))


@pytest.mark.faults
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_the_embedded_model_is_unpacked_once_and_again_if_its_bytes_change(
    monkeypatch, tmp_path, file, record_property
):
    source = find("embedded/smollm2-135m", None)
    expected = sha256_file(Path(source.path) / file)
    assert FILES["embedded/smollm2-135m"].sha256[:8] in source.path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(source.path, tmp_path / "aftertune" / source.path.rsplit("/", 1)[1])
    mine = find("embedded/smollm2-135m", None)
    assert mine.path.startswith(str(tmp_path))
    written = Path(mine.path) / file
    with written.open("r+b") as opened:
        opened.seek(written.stat().st_size // 2)
        opened.write(b"\x00\x01\x02\x03")
    again = find("embedded/smollm2-135m", None)
    assert again == mine
    assert sha256_file(written) == expected
    record_property("tried", f"{file} of the unpacked embedded model: four bytes changed")
    record_property("outcome", "found by its hash, unpacked again")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_freed_memory_is_used_again_rather_than_fetched_page_by_page():
    code = """
import resource, torch
from stages.lib.model.models import reuse_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

as_it_comes = page_faults()
reuse_freed_memory()
page_faults()
print(as_it_comes, page_faults())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    as_it_comes, told = map(int, done.stdout.split())
    assert told < as_it_comes / 10


def test_an_embedded_model_packed_once_is_bit_for_bit_the_one_packed_anew():
    source = find("embedded/smollm2-135m", None)
    anew = _load(source, "nf4", computed_in("bfloat16")).state_dict()
    once = load_base(source, "nf4", "bfloat16").state_dict()
    assert sum("quant_state" in name for name in anew) > 200
    assert list(once) == list(anew)
    assert all(torch.equal(once[name], anew[name]) for name in anew)
