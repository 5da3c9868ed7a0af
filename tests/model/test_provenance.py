"""What a model is, by its files: other content has another hash, the same content the same, wherever it lies."""

import shutil
from pathlib import Path

from stages.lib.base.files import sha256_file
from stages.lib.base.model_files import FILES
from stages.lib.model import provenance
from stages.lib.model.provenance import content, tuning


def test_a_published_file_is_its_own_hash_and_a_merged_guard_that_of_base_and_adapter(tmp_path, monkeypatch):
    assert content("embedded/smollm2-135m", None) == FILES["embedded/smollm2-135m"].sha256
    before = content("embedded/guard", None)
    shutil.copytree(provenance.adapter_folder("embedded/guard"), tmp_path / "guard")
    monkeypatch.setattr(provenance, "adapter_folder", lambda name: tmp_path / "guard")
    assert content("embedded/guard", None) == before
    with (tmp_path / "guard" / "chat_template.jinja").open("a") as file:
        file.write("Be strict.")
    assert content("embedded/guard", None) != before


def test_a_folder_is_known_by_all_its_files(tiny_models, tmp_path):
    shutil.copytree(tiny_models["qwen2"], tmp_path / "m")
    before = content(f"{tmp_path}/m", None)
    assert content(str(tiny_models["qwen2"]), None) == before
    with (tmp_path / "m" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert content(f"{tmp_path}/m", None) != before


def test_a_hub_model_is_the_same_from_a_cache_of_links_and_from_one_of_files(tmp_path, monkeypatch):
    """The hub's cache names large files by their sha256: they are not read again."""
    linked, plain = tmp_path / "linked", tmp_path / "plain"
    (tmp_path / "blobs").mkdir()
    for folder in (linked, plain):
        folder.mkdir()
        (folder / "README.md").write_text(str(folder))  # not a file that is read
    for name, text in (("model.safetensors", "weights"), ("config.json", "{}")):
        (plain / name).write_text(text)
        blob = tmp_path / "blobs" / (sha256_file(plain / name) if name.startswith("model") else "a" * 40)
        blob.write_text("not read" if name.startswith("model") else text)
        (linked / name).symlink_to(blob)
    found = []
    for folder in (linked, plain):
        monkeypatch.setattr(provenance, "model_folder", lambda name, revision, folder=folder: folder)
        found += [content("owner/name", "a" * 40), content("owner/name", "b" * 40)]
    assert found[:2] == found[2:]
    assert found[0] != found[1]


def test_what_is_put_on_a_model_is_its_weights_not_its_card(tmp_path):
    assert tuning(Path("models/base")) is None
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        (tmp_path / name).write_text(name)
    before = tuning(tmp_path)
    (tmp_path / "README.md").write_text("another card")
    assert tuning(tmp_path) == before
    (tmp_path / "adapter_config.json").write_text("{}")
    assert tuning(tmp_path) != before
