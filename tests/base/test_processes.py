"""One stage as two processes on the CPU (gloo): the same bytes generated, the same adapter trained, kills survived."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from stages.lib.base.rows import Answer, read_jsonl
from tests.conftest import ONE_THREAD, TINY, write_params

pytestmark = pytest.mark.slow

SMALL = {
    **TINY,
    "data__train_rows": 13,  # no multiple of what two processes take at a time
    "data__test_rows": 22,
    "finetune__epochs": 2,
    "finetune__accumulation": 2,
}
ENVIRONMENT = {**ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}  # one process gets the threads that each of two has

# what a GPU machine's `accelerate launch` does by itself; without GPUs, the stages choose gloo
LAUNCH = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", "-m")


def start(folder: Path, *command: str) -> subprocess.Popen:
    command = (sys.executable, "-m", *command)
    # a session of its own: a group to interrupt as a terminal does
    return subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def start_training(folder: Path) -> subprocess.Popen:
    """finetune, which has written its first checkpoint."""
    process = start(folder, "stages.finetune")
    while not list(folder.glob(".ckpt/finetune/*/checkpoint-1/SHA256SUMS")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def run(folder: Path, *command: str, code: int = 0) -> str:
    process = start(folder, *command)
    said, failed = process.communicate(timeout=300)
    assert process.returncode == code, said + failed
    return said + failed


@pytest.fixture
def small(workspace, tiny_models):
    """Makes a prepared folder for a small model, with changes of params, beside others."""

    def make(name: str, **changes) -> Path:
        folder = workspace / name
        shutil.copytree(workspace / "data", folder / "data")
        shutil.copytree(workspace / "models", folder / "models")
        shutil.copytree(tiny_models[changes.pop("architecture", "qwen2")], folder / "tiny")
        write_params(folder, **{**SMALL, **changes})
        run(folder, "stages.prepare")
        return folder

    return make


def generated(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "data/generated/base").iterdir()}


def test_two_processes_write_the_bytes_of_one(small):
    folders = one, two = small("one"), small("two", machine__processes=2)
    for stage in ("stages.gen_math", "stages.gen_safety", "stages.judge"):
        run(one, stage, "base")
        said = run(two, stage, "base")
        assert len(said.splitlines()) == 1, said  # the first process speaks for both
    assert len(generated(one)) == 6  # with how each was made
    assert generated(one) == generated(two)
    for folder in folders:
        processes = folders.index(folder) + 1
        write_params(folder, **{**SMALL, "judge__protocol": "qwen3guard", "machine__processes": processes})
        run(folder, "stages.judge", "base")
    assert generated(one) == generated(two)
    launched = small("launched")
    run(launched, *LAUNCH, "stages.gen_math", "base")
    assert generated(launched)["math.jsonl"] == generated(one)["math.jsonl"]


def optimizer(folder: Path) -> list[torch.Tensor]:
    """Adam's moving averages of the gradients, from the last checkpoint."""
    file = max(folder.glob(".ckpt/finetune/*/checkpoint-*"), key=lambda path: int(path.name[11:])) / "optimizer.pt"
    return [state["exp_avg"] for state in torch.load(file, weights_only=True)["state"].values()]


@pytest.mark.parametrize(("architecture", "quantization"), [("qwen2", "nf4"), ("llama", "none")])
def test_two_processes_train_the_adapter_of_one(small, architecture, quantization):
    changes = {"architecture": architecture, "model__quantization": quantization, "model__dtype": "float32"}
    folders = small("one", **changes), small("two", **changes, machine__processes=2)
    for folder in folders:
        run(folder, "stages.finetune")
    launched = small("launched", **changes)
    run(launched, *LAUNCH, "stages.finetune")
    adapters = (folder / "models/tuned/adapter_model.safetensors" for folder in (launched, folders[1]))
    assert len({file.read_bytes() for file in adapters}) == 1
    curves = [pd.read_csv(folder / "metrics/loss.csv") for folder in folders]
    assert len(curves[0]) == 8  # 13 rows, 4 to an update, twice
    pd.testing.assert_frame_equal(*curves, rtol=1e-5)
    for one, two in zip(*map(optimizer, folders), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
    one, two = (load_file(folder / "models/tuned/adapter_model.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)


def test_two_processes_ask_the_untuned_model_what_one_asks_and_train_alike(small):
    """A mask, replayed rows, own solutions and the divergence; then how far the model has moved."""
    ways = {"data__solutions": "own", "finetune__replay": 6, "finetune__kl": 0.5, "finetune__mask_perplexity": 1e6}
    ways |= {"model__dtype": "float32", "model__quantization": "none"}
    folders = small("one", **ways), small("two", **ways, machine__processes=2)
    for folder in folders:
        run(folder, "stages.finetune")
        run(folder, "stages.gen_safety", "base")
    one, two = ((folder / "models/tuned/training.json").read_bytes() for folder in folders)
    assert one == two
    curves = [pd.read_csv(folder / "metrics/loss.csv") for folder in folders]
    pd.testing.assert_frame_equal(*curves, rtol=1e-4)
    shutil.rmtree(folders[1] / "models/tuned")
    shutil.copytree(folders[0] / "models/tuned", folders[1] / "models/tuned")
    for folder in folders:
        run(folder, "stages.gen_safety", "tuned")
    one, two = (read_jsonl(folder / "data/generated/tuned/safety.jsonl", Answer) for folder in folders)
    assert one == two
    assert any(row.divergence for row in one)


def test_killed_processes_leave_none_behind_and_go_on(small):
    changes = {"lora__dropout": 0.1, "machine__processes": 2, "finetune__epochs": 8}
    whole, killed = small("whole", **changes), small("killed", **changes)
    run(whole, "stages.finetune")
    process = start_training(killed)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.kill()
    process.communicate(timeout=20)  # returns once nobody holds its pipes any more
    assert "going on from" in run(killed, "stages.finetune")
    for name in ("models/tuned/adapter_model.safetensors", "metrics/loss.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_ctrl_c_ends_all_processes_with_one_line(small):
    folder = small("here", machine__processes=2, finetune__epochs=50)
    process = start_training(folder)
    os.killpg(process.pid, signal.SIGINT)
    said, failed = process.communicate(timeout=60)
    assert (process.returncode, said, failed) == (130, "", "interrupted; the same command goes on from here\n")


def test_what_one_process_refuses_ends_both_without_a_traceback(small):
    folder = small("here", machine__processes=2)
    weights = load_file(folder / "tiny/model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    from safetensors.torch import save_file

    save_file(weights, folder / "tiny/model.safetensors", metadata={"format": "pt"})
    said = run(folder, "stages.gen_math", "base", code=1)
    assert said == (
        "error: the model computes nan instead of a next token: its weights are broken, or its dtype too small\n"
    )


def test_an_update_that_cannot_be_shared_evenly_is_refused(small):
    folder = small("here", machine__processes=2, finetune__batch_size=1, finetune__accumulation=3)
    said = run(folder, "stages.finetune", code=1)
    assert len(said.splitlines()) == 1
    assert "accumulation 3 rows cannot be shared evenly by 2 processes (machine.processes)" in said


def test_a_process_that_is_killed_is_said_so(small):
    folder = small("here", machine__processes=2, finetune__epochs=50)
    process = start_training(folder)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)  # as Linux does when memory runs out
    _, failed = process.communicate(timeout=60)
    assert process.returncode == 1
    assert failed.startswith("error: process 1 of 2 was ended by signal 9")
