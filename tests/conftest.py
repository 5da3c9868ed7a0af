"""Small random models of the real architectures, and a workspace of its own for stages that run for real."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ("llama", "qwen2")
settings.register_profile("shared", deadline=None)  # a busy machine is no bug
settings.load_profile("shared")


def real_data(name: str) -> Path:
    """A file of the real data sets (gsm8k/train.jsonl, ...) under $AFTERTUNE_DATA; the test is skipped without it."""
    path = Path(os.environ.get("AFTERTUNE_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"{name} is not under $AFTERTUNE_DATA; it is not distributed with the project")
    return path


def params_values(**changes: Any) -> dict[str, Any]:
    """params.yaml as nested values, with changes by dotted key (dots written as __)."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for dotted, value in changes.items():
        *sections, key = dotted.split("__")
        section = values
        for part in sections:
            section = section[part]
        section[key] = value
    return values


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per architecture with a random two-layer model in float32 and the embedded model's tokenizer.

    Their generation settings penalize repetition and sample, as Qwen2.5's do on the hub; the project must not follow.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, Qwen2Config

    from stages.lib.models import find, load_tokenizer

    tokenizer = load_tokenizer(find("embedded/smollm2-135m", None))
    folders = {}
    for name, config_class in zip(ARCHITECTURES, (LlamaConfig, Qwen2Config), strict=True):
        torch.manual_seed(7)
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.5,
            tie_word_embeddings=name == "qwen2",
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.7, top_p=0.8, repetition_penalty=1.5, eos_token_id=2, pad_token_id=2
        )
        folders[name] = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace with the embedded data, runs.yaml and models/base; the current folder for the test."""
    shutil.copytree(ROOT / "data" / "embedded", tmp_path / "data" / "embedded")
    shutil.copytree(ROOT / "models" / "base", tmp_path / "models" / "base")
    shutil.copy(ROOT / "runs.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_params(folder: Path, **changes: Any) -> None:
    """params.yaml in a workspace: the repository's, with changes by dotted key (dots written as __)."""
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params_values(**changes), file)
