"""Unfinished work is taken up by the same configuration only, one process at a time; a damaged piece of it is not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.base.files import SUMS
from stages.lib.base.params import parse_params
from stages.lib.base.unfinished import clear_finished, read_part, unfinished, write_part
from stages.lib.base.waiting import held
from stages.lib.generate import engine
from stages.lib.generate.engine import Engine, greedy, next_token
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.train import checkpoints
from stages.lib.train.checkpoints import by_step, last_good
from stages.lib.train.training import add_lora, train
from tests.conftest import ROOT, params_values

PROMPTS = [f"Count from {n} to {n * n}:" for n in range(10)]
ROWS = [{"input_ids": list(range(5, 40 + n)), "labels": list(range(5, 40 + n))} for n in range(12)]


def params(**changes):
    return parse_params(params_values(**changes), "params.yaml")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, in which no DVC is at work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def key(folder, **changes):
    with unfinished("stage", {"lora": params(**changes).lora}, [folder / "rows.jsonl"]) as work:
        return work.name


def test_the_key_is_of_all_that_decides_the_result(here, monkeypatch):
    first = key(here)
    assert key(here) == first
    assert key(here, lora__r=9) != first
    assert key(here, finetune__seed=9) == first  # not given
    (here / "rows.jsonl").write_text("{}\n\n")
    assert key(here) != first
    (here / "rows.jsonl").write_text("{}\n")
    monkeypatch.setattr("stages.lib.base.unfinished.version", lambda name: "0")
    assert key(here) != first
    threads = torch.get_num_threads()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    torch.set_num_threads(threads + 1)
    try:
        assert key(here) != first
    finally:
        torch.set_num_threads(threads)
    assert key(here) == first


def test_what_fails_is_kept_what_ends_is_cleared_and_not_much_piles_up(here):
    for rank in range(1, 7):
        with pytest.raises(BadInput), unfinished("stage", {"lora": params(lora__r=rank).lora}, []) as work:
            write_part(work, "part", rank)
            raise BadInput("killed, as it were")
    folders = [path for path in (here / ".ckpt/stage").iterdir() if path.is_dir()]
    assert sorted(read_part(folder, "part") for folder in folders) == [4, 5, 6]
    with unfinished("stage", {"lora": params(lora__r=6).lora}, []) as work:
        assert read_part(work, "part") == 6
    clear_finished()
    folders = [path for path in (here / ".ckpt/stage").iterdir() if path.is_dir()]
    assert sorted(read_part(folder, "part") for folder in folders) == [4, 5]


SECOND = """
from stages.lib.base.cli import run
from stages.lib.base.params import load_params
from stages.lib.base.unfinished import read_part, unfinished
def main():
    with unfinished("stage", {"lora": load_params().lora}, []) as work:
        print("found", read_part(work, "first"))
run(main)
"""


@pytest.fixture
def second(here):
    """Starts another process at the work that a test has in hand; it says so once it waits."""
    shutil.copy(ROOT / "params.yaml", here)
    # the number of threads is part of the key
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}

    def start() -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        process = subprocess.Popen([sys.executable, "-c", SECOND], env=environment, preexec_fn=heard, **pipes)
        said = process.stderr.readline()
        assert "stage: this very work, with the same parameters, data and code, is being done already; " in said
        assert f"waiting for process {os.getpid()} on " in said
        return process

    return start


def test_who_comes_second_waits_and_takes_what_the_first_has_finished(here, second):
    with unfinished("stage", {"lora": params().lora}, []) as work:
        waiting = second()
        write_part(work, "first", "a batch")
    said, told = waiting.communicate(timeout=60)
    assert (waiting.returncode, said) == (0, "found a batch\n")
    assert "no more: going on after " in told


def test_who_comes_second_takes_what_a_first_that_failed_has_finished(here, second):
    with pytest.raises(KeyboardInterrupt), unfinished("stage", {"lora": params().lora}, []) as work:
        write_part(work, "first", "a batch")
        waiting = second()
        raise KeyboardInterrupt
    assert waiting.communicate(timeout=60)[0] == "found a batch\n"


def test_ctrl_c_ends_the_waiting(here, second):
    with unfinished("stage", {"lora": params().lora}, []):
        waiting = second()
        waiting.send_signal(signal.SIGINT)
        said, told = waiting.communicate(timeout=60)
    assert (waiting.returncode, said) == (130, "")
    assert "Traceback" not in told


def test_a_lock_may_be_taken_again_by_who_holds_it_and_names_its_holder(tmp_path):
    with held(tmp_path / "a.lock", "at work"), held(tmp_path / "a.lock", "at work"):
        assert (tmp_path / "a.pid").read_text().startswith(f"{os.getpid()} on ")


@pytest.fixture(scope="module")
def loaded(tiny_models):
    source = Source(str(tiny_models["llama"]), None)
    return load_base(source, "none", "float32"), load_tokenizer(source)


def test_batches_that_are_finished_are_not_asked_again(loaded, tmp_path, monkeypatch):
    wanted = greedy(Engine(*loaded, 4, tmp_path), PROMPTS, 6, "test")
    scores = next_token(Engine(*loaded, 4, tmp_path), PROMPTS, [5, 6], "test")
    assert len(list(tmp_path.iterdir())) == 2 + 2  # ten prompts: a batch of four, and one of six
    missing = min(tmp_path.iterdir())
    missing.unlink()
    asked = []
    batch = engine._batch
    monkeypatch.setattr(
        engine, "_batch", lambda work, prompts, *more: asked.append(prompts) or batch(work, prompts, *more)
    )
    assert greedy(Engine(*loaded, 4, tmp_path), PROMPTS, 6, "test") == wanted
    again = next_token(Engine(*loaded, 4, tmp_path), PROMPTS, [5, 6], "test")
    assert [(best, list(values)) for best, values in again] == [(best, list(values)) for best, values in scores]
    assert len(asked) == 1
    assert missing.is_file()
    asked.clear()
    greedy(Engine(*loaded, 4, tmp_path), PROMPTS, 7, "test")  # another limit: other work
    assert len(asked) == 2


def test_a_damaged_batch_is_named_and_done_again(loaded, tmp_path, capsys):
    wanted = greedy(Engine(*loaded, 4, tmp_path), PROMPTS, 6, "test")
    part = min(tmp_path.iterdir())
    digest, text = part.read_text().splitlines()
    kept = json.loads(text)
    kept["results"][0][0] += 1
    part.write_text(f"{digest}\n{json.dumps(kept)}\n")
    assert greedy(Engine(*loaded, 4, tmp_path), PROMPTS, 6, "test") == wanted
    assert f"{part.name}: damaged" in capsys.readouterr().err
    assert part.read_text() == f"{digest}\n{text}\n"


def tuned(folder, keep, monkeypatch=None, stop=None):
    """(steps, adapter) of a tiny training; with `stop`, it is interrupted once that update has a checkpoint."""
    settings = params(lora__dropout=0.2, finetune__batch_size=2, finetune__epochs=2)
    model = add_lora(load_base(Source(str(folder), None), "none", "float32"), settings.lora, 5, "./tiny", None)
    if stop:
        save = checkpoints.Checkpoints.on_save

        def save_and_stop(self, args, state, control, **more):
            save(self, args, state, control, **more)
            if state.global_step == stop:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(checkpoints.Checkpoints, "on_save", save_and_stop)
            with pytest.raises(KeyboardInterrupt):
                train(model, ROWS, settings.finetune, False, keep)
        return None
    steps = train(model, ROWS, settings.finetune, False, keep)
    return steps, {name: weight.detach() for name, weight in model.named_parameters() if "lora_" in name}


def test_training_goes_on_from_a_checkpoint_with_the_bits_of_an_unbroken_run(
    tiny_models, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)  # after every update
    steps, adapter = tuned(tiny_models["qwen2"], None)
    assert len(steps) == 12
    for stop in (2, 6, 9):  # within an epoch, between two, in the second
        keep = tmp_path / str(stop)
        keep.mkdir()
        tuned(tiny_models["qwen2"], keep, monkeypatch, stop)
        assert [path.name for path in by_step(keep)] == [f"checkpoint-{stop}", f"checkpoint-{stop - 1}"]
        again, same = tuned(tiny_models["qwen2"], keep)
        assert f"going on from {keep}/checkpoint-{stop}\n" in capsys.readouterr().err
        assert again == steps
        assert all(torch.equal(adapter[name], same[name]) for name in adapter)


def test_checkpoints_take_their_share_of_the_time_and_no_more(tiny_models, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHARE", 1e-9)
    tuned(tiny_models["qwen2"], tmp_path)
    assert [path.name for path in by_step(tmp_path)] == ["checkpoint-12", "checkpoint-1"]  # the first, and the end


def test_a_checkpoint_without_its_sums_or_with_others_is_not_used(tiny_models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    tuned(tiny_models["qwen2"], tmp_path, monkeypatch, 5)
    last, before = by_step(tmp_path)
    (last / SUMS).unlink()  # killed while it was written
    assert last_good(tmp_path) == before
    assert "checkpoint-5/SHA256SUMS is missing; this checkpoint is not used" in capsys.readouterr().err
    assert not last.exists()
