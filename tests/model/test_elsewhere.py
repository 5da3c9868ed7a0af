"""Adapters as other tools write them: on the base model they give peft's own logits, or they are refused by name."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from stages import finetune, prepare
from stages.lib.base.errors import BadInput
from stages.lib.base.files import damage, sha256_file
from stages.lib.base.params import load_params
from stages.lib.base.sections import Model
from stages.lib.generate.engine import Engine, greedy
from stages.lib.generate.moved import divergences
from stages.lib.model.adapters import is_named
from stages.lib.model.elsewhere import check_elsewhere
from stages.lib.model.models import has_biases, load_subject
from stages.lib.model.sources import Source
from tests.conftest import write_params
from tools import export

PART, SETTINGS, TUNED = "adapter_model.safetensors", "adapter_config.json", Path("models/tuned")
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# as Unsloth names the modules of a language model that may be part of one that sees
UNSLOTH = (
    r"(?:.*?(?:language|text|model).*?(?:self_attn|mlp)\.(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj))"
)
WAYS = {
    "TRL's default": {"target_modules": ["q_proj", "v_proj"]},
    "TRL, all-linear": {"target_modules": "all-linear"},
    "LLaMA-Factory, rsLoRA": {"target_modules": SEVEN, "use_rslora": True},
    "LLaMA-Factory, DoRA": {"target_modules": SEVEN, "use_dora": True},
    "LLaMA-Factory, additional_target": {"target_modules": SEVEN, "modules_to_save": ["norm"]},
    "axolotl, embeddings and output layer": {"target_modules": SEVEN, "modules_to_save": ["embed_tokens", "lm_head"]},
    "axolotl, some layers": {"target_modules": SEVEN, "layers_to_transform": [1]},
    "axolotl, DoRA and rsLoRA": {"target_modules": SEVEN, "use_dora": True, "use_rslora": True},
    "Unsloth, a pattern": {"target_modules": UNSLOTH, "use_rslora": True},
    "the output layer, too": {"target_modules": [*SEVEN, "lm_head"]},
    "the embedding, too": {"target_modules": [*SEVEN, "embed_tokens"]},
    "single tokens": {"target_modules": SEVEN, "trainable_token_indices": [1, 2]},
    "biases": {"target_modules": SEVEN, "bias": "lora_only"},
    "ranks of their own": {"target_modules": SEVEN, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 4}},
}
# on a weight that the tiny Qwen2 model has in its embedding and its output layer
TWICE = ["axolotl, embeddings and output layer", "the output layer, too", "the embedding, too"]


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def make(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter of the model in `base`, every trained number of it drawn anew, saved by peft, the tokenizer beside."""
    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied embeddings
        model = get_peft_model(
            plain(base), LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings})
        )
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.add_(0.3 * torch.randn_like(weight))
        model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def change(folder: Path, act: Callable[[dict[str, torch.Tensor]], Any], file: str = PART) -> None:
    """Other tensors in a safetensors file."""
    tensors = load_file(folder / file)
    act(tensors)
    save_file(tensors, folder / file, metadata={"format": "pt"})


def edit(folder: Path, **changes: Any) -> None:
    """Other settings of an adapter; a key whose value is ... is taken away."""
    settings = {**json.loads((folder / SETTINGS).read_text()), **changes}
    (folder / SETTINGS).write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))


@pytest.fixture
def take(workspace, tiny_models, monkeypatch) -> Callable[..., None]:
    """Run the finetune stage with tuned.model ./mine on the tiny Qwen2 model, ./tiny."""
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    monkeypatch.setattr(sys, "argv", ["finetune"])

    def run(**changes: Any) -> None:
        settings = {"model__name": "./tiny", "model__quantization": "none", "model__dtype": "float32"}
        write_params(workspace, **{**settings, "tuned__model": "./mine", **changes})
        finetune.main()

    return run


@pytest.fixture
def prepared(take, monkeypatch) -> Callable[..., None]:
    """As `take`, and a few prepared prompts, on which what is handed on is compared."""

    def run(**changes: Any) -> None:
        take(data__test_rows=4, data__hazard_rows=14, **changes)
        monkeypatch.setattr(sys, "argv", ["prepare"])
        prepare.main()

    return run


def measured() -> tuple[Any, Any]:
    """The tuned model and its tokenizer, as the next stages load them."""
    return load_subject(load_params().model, TUNED, tuned=True)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 5, 6, 7, 8]])).logits


@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_answers_as_peft_has_it(take, workspace, way):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    take()
    model, tokenizer = measured()
    theirs = PeftModel.from_pretrained(plain(workspace / "tiny"), workspace / "mine").eval()
    expected, base = logits(theirs), logits(plain(workspace / "tiny"))
    assert (expected - base).abs().max() > 0.05 * base.abs().max(), "the adapter must do something"
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4 * float(base.abs().max()))
    prompts = ["Two apples and", "Once upon a time, there"]
    for prompt, found in zip(prompts, greedy(Engine(model, tokenizer, 2), prompts, 12, "test"), strict=True):
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        options = {
            "do_sample": False,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_p": 1.0,
            "max_new_tokens": 12,
        }
        said = theirs.generate(**ids, **options)[0, ids["input_ids"].shape[1] :]
        assert found.text == tokenizer.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("way", ["LLaMA-Factory, additional_target", "LLaMA-Factory, DoRA"])
def test_an_adapter_on_four_bits_answers_as_peft_has_it_there(take, workspace, way):
    """There: on the base model's four bits, written out as the stages do before an adapter is put on."""
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    take(model__quantization="nf4")
    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained("tiny", dtype=torch.float32, quantization_config=packed)
    expected = logits(PeftModel.from_pretrained(base.dequantize(torch.float32), "mine").eval())
    torch.testing.assert_close(logits(measured()[0]), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_the_few_settings_that_torchtune_writes_are_enough(take, workspace):
    make(workspace / "tiny", workspace / "mine", target_modules=SEVEN)
    few = {"r", "lora_alpha", "target_modules", "peft_type"}
    settings = json.loads((workspace / "mine" / SETTINGS).read_text())
    edit(workspace / "mine", **dict.fromkeys({*settings} - few, ...))
    for file in (workspace / "mine").glob("*token*"):
        file.unlink()
    (workspace / "mine/chat_template.jinja").unlink()
    take()
    expected = logits(PeftModel.from_pretrained(plain(Path("tiny")), "mine").eval())
    torch.testing.assert_close(logits(measured()[0]), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    card = (TUNED / "README.md").read_text()
    for said in (
        "As its base model it names none",
        "It brings no tokenizer",
        "rank 4, alpha 8, on down_proj, gate_proj",
    ):
        assert said in card
    assert sha256_file(Path("mine") / PART) in card
    assert (TUNED / PART).read_bytes() == (Path("mine") / PART).read_bytes()
    assert damage(TUNED) is None


NAMED = [
    ("Qwen/Qwen2.5-0.5B-Instruct", "names Qwen/Qwen2.5-0.5B-Instruct, which model.name is as well"),
    ("unsloth/qwen2.5-0.5b-instruct-unsloth-bnb-4bit", "which model.name is as well"),
    ("/home/me/models/qwen", "names '/home/me/models/qwen', which says nothing here"),
    (None, "names none, which says nothing here"),
    ("Qwen/Qwen2.5-Coder-0.5B-Instruct", None),
    ("Qwen/Qwen2.5-0.5B", None),
]


@pytest.mark.parametrize(("named", "said"), NAMED)
def test_the_base_model_that_an_adapter_names_is_this_one_or_it_is_refused(tiny_models, tmp_path, named, said):
    hub = Model(name="Qwen/Qwen2.5-0.5B-Instruct", revision="a" * 40, quantization="none", dtype="float32")
    folder, base = tmp_path / "mine", Source(str(tiny_models["qwen2"]), None)
    make(tiny_models["qwen2"], folder, target_modules=SEVEN)
    edit(folder, base_model_name_or_path=named)
    if said:
        assert said in " ".join(check_elsewhere(str(folder), None, base, hub).found)
    else:
        with pytest.raises(BadInput, match=f"base_model_name_or_path: found {named!r}, but model.name is {hub.name}"):
            check_elsewhere(str(folder), None, base, hub)


def test_an_embedded_model_is_known_by_the_name_of_its_file():
    assert is_named("embedded/smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert is_named("embedded/qwen2.5-coder-0.5b-instruct", "unsloth/Qwen2.5-Coder-0.5B-Instruct-bnb-4bit")
    assert not is_named("embedded/smollm2-135m", "HuggingFaceTB/SmolLM2-135M")
    assert not is_named("embedded/qwen2.5-coder-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct")


def longer(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    tensors[name] = torch.cat([tensors[name], tensors[name][:64]])


def more_layers(tensors: dict[str, torch.Tensor]) -> None:
    layer = {name: weight for name, weight in tensors.items() if ".layers.1." in name}
    tensors.update({name.replace(".layers.1.", ".layers.2."): weight.clone() for name, weight in layer.items()})


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>", "<|im_start|> "))


def token_moved(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["\u0120the"], vocabulary["\u0120and"] = vocabulary["\u0120and"], vocabulary["\u0120the"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def only_pickles(folder: Path) -> None:
    (folder / PART).rename(folder / "adapter_model.bin")


BOTH = ["embed_tokens", "lm_head"]
REFUSED = {
    "only pickled weights": (only_pickles, "adapter_model.safetensors is missing; other weight formats"),
    "truncated weights": (
        lambda f: (f / PART).write_bytes((f / PART).read_bytes()[:999]),
        "not readable as safetensors",
    ),
    "weights that are nan": (lambda f: change(f, lambda t: next(iter(t.values())).fill_(float("nan"))), "holds nan or"),
    "one tensor missing": (lambda f: change(f, dict.popitem), "adapter_model.safetensors: it lacks"),
    "a layer more": (lambda f: change(f, more_layers), "has no place in the base model (14 such of 42)"),
    "a module that is not saved": (
        lambda f: edit(f, modules_to_save=["norm"]),
        "it lacks 'base_model.model.model.",
    ),
    "another rank": (lambda f: edit(f, r=8), "the adapter does not fit the base model", "size mismatch"),
    "modules that it lacks": (lambda f: edit(f, target_modules=["wq"]), "Target modules {'wq'} not found"),
    "settings that are none": (lambda f: (f / SETTINGS).write_text("[1]"), "adapter_config.json: not a JSON object"),
    "another method": (lambda f: edit(f, peft_type="IA3"), "peft_type: found 'IA3'; expected LORA: merge it"),
    "another task": (lambda f: edit(f, task_type="SEQ_CLS"), "task_type: found 'SEQ_CLS'"),
    "a changed base": (lambda f: edit(f, init_lora_weights="pissa"), "init_lora_weights: found 'pissa', which changed"),
    "layers that repeat": (lambda f: edit(f, layer_replication=[[0, 2], [1, 2]]), "layer_replication: found [[0, 2]"),
    "a setting of tomorrow": (lambda f: edit(f, use_next_lora=True), "use_next_lora: found True; not measured here"),
    "another chat template": (other_template, "its chat template writes", "it was tuned on other prompts"),
    "another tokenizer": (token_moved, "its tokenizer is another one: 2 tokens"),
    "whole weights beside it": (lambda f: shutil.copy("tiny/model.safetensors", f), "an adapter and whole weights"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_not_be_put_on_whole_is_refused_by_name(take, workspace, why):
    damage_it, *said = REFUSED[why]
    make(workspace / "tiny", workspace / "mine", target_modules=SEVEN)
    damage_it(workspace / "mine")
    with pytest.raises(BadInput, match=r"^tuned\.model \./mine: ") as refused:
        take()
    assert all(words in str(refused.value) for words in said), refused.value
    assert len(str(refused.value)) < 600
    assert not TUNED.exists()


def test_a_resized_vocabulary_is_refused_by_name(take, workspace):
    make(workspace / "tiny", workspace / "mine", target_modules=SEVEN, modules_to_save=BOTH)
    change(workspace / "mine", longer)
    with pytest.raises(
        BadInput, match=r"embed_tokens\.weight has \d+ tokens, but the base model \d+: a resized vocabulary"
    ):
        take()


def test_a_token_more_is_said_and_no_reason_to_refuse(take, workspace):
    """Unsloth adds a token to pad with; embeddings that have room for it are as they were."""
    make(workspace / "tiny", workspace / "mine", target_modules=SEVEN)
    tokenizer = AutoTokenizer.from_pretrained("mine")
    tokenizer.add_tokens(["<|PAD_TOKEN|>"], special_tokens=True)
    tokenizer.save_pretrained("mine")
    take()
    assert "Its tokenizer adds 1 tokens ('<|PAD_TOKEN|>')" in (TUNED / "README.md").read_text()


# whole weights


def whole(base: Path, folder: Path) -> None:
    """The model with other numbers in every matrix, saved with its tokenizer."""
    torch.manual_seed(12)
    model = plain(base)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def test_whole_weights_answer_as_they_do_elsewhere(take, workspace):
    whole(workspace / "tiny", workspace / "mine")
    take()
    expected = logits(plain(Path("mine")))
    assert (expected - logits(plain(Path("tiny")))).abs().max() > 0.05 * expected.abs().max()
    torch.testing.assert_close(logits(measured()[0]), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    card = (TUNED / "README.md").read_text()
    assert "# All weights tuned from `./tiny`" in card
    assert "Its config.json differs from the base model's in: nothing." in card
    assert "math word problems" not in card


def config(**changes: Any) -> Callable[[Path], Any]:
    """Other values in config.json."""

    def act(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return act


WHOLE = "model.safetensors"
NOT_WHOLE = {
    "no model": (lambda f: (f / "config.json").unlink(), "no config.json there"),
    "only pickled weights": (lambda f: (f / WHOLE).rename(f / "pytorch_model.bin"), "no *.safetensors there"),
    "another architecture": (config(model_type="llama"), "model_type: found 'llama'; the base model's is 'qwen2'"),
    "weights in four bits": (config(quantization_config={"load_in_4bit": True}), "quantized; save them in 16 bits"),
    "a resized vocabulary": (lambda f: change(f, longer, WHOLE), "a resized vocabulary; cut the model back"),
    "a layer more": (lambda f: change(f, more_layers, WHOLE), "only the tuned weights have model.layers.2"),
    "a tensor less": (
        lambda f: change(f, lambda t: t.pop("model.norm.weight"), WHOLE),
        "the tuned weights lack model.",
    ),
    "infinite weights": (
        lambda f: change(f, lambda t: t["model.norm.weight"].fill_(float("inf")), WHOLE),
        "holds nan or infinity",
    ),
}


@pytest.mark.parametrize("why", NOT_WHOLE)
def test_whole_weights_that_are_no_tuning_of_the_base_are_refused_by_name(take, workspace, why):
    damage_it, said = NOT_WHOLE[why]
    whole(workspace / "tiny", workspace / "mine")
    damage_it(workspace / "mine")
    with pytest.raises(BadInput, match=r"^tuned\.model \./mine: ") as refused:
        take()
    assert said in str(refused.value)
    assert not TUNED.exists()


@pytest.mark.filterwarnings("ignore:Model (has|with)")
@pytest.mark.parametrize("way", [way for way in WAYS if way not in TWICE])
def test_what_was_tuned_elsewhere_is_handed_on_as_it_was_measured(prepared, way, workspace):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    prepared()
    wanted = logits(measured()[0])
    params = load_params()
    assert "logits are those of the measured model" in export.copy(params, Path("adapter"))
    export.merge(params, Path("merged"))
    torch.testing.assert_close(logits(plain(Path("merged"))), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Model (has|with)")
@pytest.mark.parametrize("way", TWICE)
def test_what_changes_a_weight_that_is_there_twice_is_not_merged(prepared, way, workspace):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    prepared()
    with pytest.raises(BadInput, match=r"its adapter is on (embed_tokens|lm_head), whose weight the model has in its"):
        export.merge(load_params(), Path("merged"))


def test_whole_weights_without_a_tokenizer_are_handed_on_with_the_one_that_they_were_measured_with(prepared, workspace):
    model = plain(workspace / "tiny")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.3)
    model.save_pretrained(workspace / "mine")
    prepared()
    export.copy(load_params(), Path("whole"))
    torch.testing.assert_close(logits(plain(Path("whole"))), logits(model))
    chat = [{"role": "user", "content": "How many days?"}]
    assert AutoTokenizer.from_pretrained("whole").apply_chat_template(chat) == measured()[1].apply_chat_template(chat)


NO_SUM = ("LLaMA-Factory, DoRA", "biases", "LLaMA-Factory, additional_target", "single tokens")


@pytest.mark.filterwarnings("ignore:Model (has|with)")
@pytest.mark.parametrize("way", NO_SUM)
def test_a_strength_is_refused_where_an_adapter_is_no_sum(take, workspace, way):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    take(lora__strength=0.5)
    with pytest.raises(BadInput, match=r"lora\.strength is 0\.5, but this adapter has parts that are no sum"):
        load_subject(load_params().model, TUNED, True, 0.5)


def test_a_strength_is_refused_of_whole_weights(take, workspace):
    whole(workspace / "tiny", workspace / "mine")
    take(lora__strength=0.5)
    with pytest.raises(BadInput, match=r"lora\.strength is 0\.5, but models/tuned holds whole weights, no adapter"):
        load_subject(load_params().model, TUNED, True, 0.5)


@pytest.mark.filterwarnings("ignore:Model (has|with)")
@pytest.mark.parametrize("way", ["the embedding, too", "ranks of their own", "Unsloth, a pattern"])
def test_at_no_strength_it_is_the_untuned_model_and_at_half_it_is_handed_on_so(prepared, workspace, way):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    prepared(lora__strength=0.5)
    model = load_params().model
    off = logits(load_subject(model, TUNED, True, 0.0)[0])
    torch.testing.assert_close(off, logits(plain(workspace / "tiny")), rtol=1e-3, atol=1e-4)
    assert "logits are those of the measured model" in export.copy(load_params(), Path("adapter"))


@pytest.mark.parametrize("way", ["TRL's default", "biases"])
def test_how_far_it_moved_is_from_the_untuned_model_whatever_the_adapter_leaves_behind(take, workspace, way):
    make(workspace / "tiny", workspace / "mine", **WAYS[way])
    take()
    untuned = logits(plain(workspace / "tiny")).double().log_softmax(-1)
    tuned, _ = measured()
    after = logits(tuned).double().log_softmax(-1)
    wanted = (untuned.exp() * (untuned - after)).sum(-1)[0, 2:-1].mean().item()
    text = [([1, 2, 5], [6, 7, 8])]
    before = plain(workspace / "tiny") if has_biases(tuned) else None
    assert has_biases(tuned) == (way == "biases")
    assert divergences(tuned, before, text)[0] == pytest.approx(wanted, rel=1e-3)
