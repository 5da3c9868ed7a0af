"""Folders with a model or an adapter."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.lib.base.files import SUMS, write_sums
from stages.lib.base.params import parse_params
from stages.lib.model.models import load_base, load_subject
from stages.lib.model.sources import Source, check_present, load_tokenizer
from stages.lib.prompts.chat import render_prompt, safety_messages
from tests.bad_input.conftest import by_words
from tests.conftest import params_values
from tests.model.test_models import model_params

pytestmark = pytest.mark.faults


# models


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """A change of the top-level keys of a folder's JSON file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def write(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Another content for a folder's file; None removes it."""
    return lambda folder: (folder / name).unlink() if content is None else (folder / name).write_bytes(content)


def cut(name: str) -> Callable[[Path], None]:
    """Half of a folder's file."""
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def tensors(name: str, change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """Other tensors in a folder's safetensors file."""

    def save(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        values = load_file(folder / name)
        change(values)
        save_file(values, folder / name, metadata={"format": "pt"})

    return save


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [change(folder) for change in changes] and None


WHOLE = "model.safetensors"
OWN_CODE = {"auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
MODELS = [
    ("no config.json", write("config.json", None), "no config.json there"),
    ("a config.json that is not JSON", write("config.json", b"{"), "config.json' is not a valid JSON"),
    ("a config.json that is a list", write("config.json", b"[]"), "cannot be loaded"),
    ("a config.json that is not UTF-8", write("config.json", b"\xff\xfe"), "config.json' is not a valid JSON"),
    ("only pickled weights", both(write(WHOLE, None), write("pytorch_model.bin", b"x")), "no *.safetensors there"),
    ("truncated weights", cut(WHOLE), "cannot be loaded", "header"),
    ("empty weights", write(WHOLE, b""), "cannot be loaded", "header too small"),
    ("weights with a garbage header", write(WHOLE, b"\xff" * 5000), "cannot be loaded", "header too large"),
    ("weights with a header that is not JSON", write(WHOLE, b"\x08" + bytes(7) + b"not json"), "JSON in header"),
    ("weights that lack a tensor", tensors(WHOLE, lambda values: values.popitem()), "the weights lack model."),
    ("weights of another shape", edit("config.json", vocab_size=10), ".weight"),
    ("an unknown model_type", edit("config.json", model_type="mine"), "model type `mine`"),
    ("a model_type that brings its own code", edit("config.json", model_type="mine", **OWN_CODE), "custom code"),
    ("no attention heads", edit("config.json", num_attention_heads=0), "cannot be loaded"),
    ("a broken generation_config.json", write("generation_config.json", b"{"), "generation_config"),
    ("no tokenizer", both(write("tokenizer.json", None), write("tokenizer_config.json", None)), "its tokenizer cannot"),
    ("a tokenizer that is not JSON", write("tokenizer.json", b"{"), "its tokenizer cannot be loaded"),
    ("no chat template", write("chat_template.jinja", None), "no chat template"),
    ("a chat template that is no template", write("chat_template.jinja", b"{% for %}"), "chat template"),
    ("a chat template that reaches for Python", write("chat_template.jinja", b"{{ ''.__class__.mro() }}"), "template"),
    ("a chat template that adds text and number", write("chat_template.jinja", b"{{ 'a' + 1 }}"), "chat template"),
]


@by_words(MODELS)
def test_a_folder_with_a_broken_model_is_refused(tiny_models, tmp_path, refused, case):
    tried, change, *said = case
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    change(folder)

    def use() -> None:
        check_present(str(folder))
        load_base(Source(str(folder), None), "none", "float32")
        render_prompt(load_tokenizer(Source(str(folder), None)), safety_messages("hello"))

    refused(f"a model with {tried}", use, *said)


def test_code_that_comes_with_a_known_model_is_not_run(tiny_models, tmp_path, harmless):
    harmless("a llama model with code of its own (auto_map)", "loaded as a llama model: the code is not run")
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    edit("config.json", **OWN_CODE)(folder)
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert type(load_base(Source(str(folder), None), "none", "float32")).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


# adapters


@pytest.fixture(scope="module")
def adapter(tiny_models, tmp_path_factory) -> Path:
    """A folder with an adapter for the tiny Qwen2 model and its SHA256SUMS, not to be changed."""
    from stages.lib.train.training import add_lora, save

    source, folder = Source(str(tiny_models["qwen2"]), None), tmp_path_factory.mktemp("adapter") / "tuned"
    lora = parse_params(params_values(), "params.yaml").lora
    save(add_lora(load_base(source, "none", "float32"), lora, 3, source.path, None), None, folder, "float32")
    write_sums(folder)
    return folder


def flip(folder: Path) -> None:
    content = bytearray((folder / PART).read_bytes())
    content[-10] ^= 1
    (folder / PART).write_bytes(content)


def sums(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / SUMS).write_text(change((folder / SUMS).read_text()))


PART, SETTINGS, ZEROS = "adapter_model.safetensors", "adapter_config.json", "0" * 64
DAMAGED = [  # under SHA256SUMS
    ("a flipped bit", flip, f"{PART} is damaged"),
    ("truncated weights", cut(PART), f"{PART} is damaged"),
    ("missing weights", write(PART, None), f"{PART} is missing"),
    ("an empty SHA256SUMS", sums(lambda _: ""), SUMS),
    ("a SHA256SUMS that is not text", write(SUMS, b"\xff"), f"{SUMS}: not UTF-8"),
    ("a SHA256SUMS that is no list", sums(lambda _: "hello\n"), f"{SUMS}:1:"),
    ("a SHA256SUMS that leaves the weights out", sums(lambda text: re.sub(f".*{PART}\n", "", text)), PART),
    ("a SHA256SUMS that names ../../x", sums(lambda text: f"{text}{ZEROS}  ../../x\n"), f"{SUMS}:"),
    ("a SHA256SUMS that names /etc/passwd", sums(lambda text: f"{text}{ZEROS}  /etc/passwd\n"), f"{SUMS}:"),
    ("a SHA256SUMS with a name of 5,000 letters", sums(lambda text: f"{text}{ZEROS}  {'a' * 5000}\n"), f"{SUMS}:"),
]
CHANGED = [  # without SHA256SUMS
    (
        "pickled weights",
        lambda folder: (folder / PART).rename(folder / "adapter_model.bin"),
        "(pickles) are not loaded",
    ),
    ("truncated weights", cut(PART), "the adapter cannot be loaded"),
    ("weights that are NaN", tensors(PART, lambda values: next(iter(values.values())).fill_(float("nan"))), "nan"),
    ("infinite weights", tensors(PART, lambda values: next(iter(values.values())).fill_(float("inf"))), "infinity"),
    ("one tensor missing", tensors(PART, lambda values: values.popitem()), "missing adapter keys"),
    ("no tensors", tensors(PART, dict.clear), "missing adapter keys"),
    ("weights of another rank", edit(SETTINGS, r=4), "the adapter cannot be loaded", "size mismatch"),
    ("another base model", edit(SETTINGS, base_model_name_or_path="./other"), "this adapter was made for ./other"),
    ("no base model", edit(SETTINGS, base_model_name_or_path=None), "this adapter was made for None"),
    ("settings that are not JSON", write(SETTINGS, b"{"), f"{SETTINGS}: not a JSON object"),
    ("settings that are a list", write(SETTINGS, b"[1]"), f"{SETTINGS}: not a JSON object"),
    ("settings that are not UTF-8", write(SETTINGS, b"\xff"), f"{SETTINGS}: not UTF-8"),
    ("settings 100,000 levels deep", write(SETTINGS, b"[" * 100_000), f"{SETTINGS}: not a JSON object"),
    ("an alpha of NaN", edit(SETTINGS, lora_alpha=float("nan")), SETTINGS),
    ("an infinite alpha", edit(SETTINGS, lora_alpha=float("inf")), SETTINGS),
    ("an unknown kind of adapter", edit(SETTINGS, peft_type="MINE"), "the adapter cannot be loaded", "MINE"),
    ("layers that the model lacks", edit(SETTINGS, target_modules=["nothing"]), "Target modules {'nothing'} not found"),
]


@by_words([(*case[:2], True, *case[2:]) for case in DAMAGED] + [(*case[:2], False, *case[2:]) for case in CHANGED])
def test_a_broken_adapter_is_refused(tiny_models, adapter, tmp_path, refused, case):
    tried, change, with_sums, *said = case
    folder = tmp_path / "tuned"
    shutil.copytree(adapter, folder)
    if not with_sums:
        (folder / SUMS).unlink()
    change(folder)
    params = model_params(tiny_models["qwen2"])
    kind = "with SHA256SUMS" if with_sums else "without SHA256SUMS"
    refused(f"an adapter {kind}: {tried}", lambda: load_subject(params, folder, tuned=True), *said)


def test_an_adapter_does_not_vouch_for_files_outside_its_folder(tiny_models, adapter, tmp_path, refused):
    shutil.copytree(adapter, tmp_path / "tuned")
    (tmp_path / "x").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    sums(lambda text: f"{text}{digest}  ../x\n")(tmp_path / "tuned")
    params = model_params(tiny_models["qwen2"])
    tried = "an adapter whose SHA256SUMS names a file above, with its right hash"
    refused(tried, lambda: load_subject(params, tmp_path / "tuned", tuned=True), f"{SUMS}:")
