"""tools.serve: how vLLM is started for params, and that no process of it outlives the command."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.serving import tuned_id
from stages.lib.model.provenance import tuning
from tests.conftest import ROOT, with_adapter, write_params
from tools import serve

# a program that answers as vLLM does when it is ready, and has a child of its own, as vLLM has
READY = """
import http.server, pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("child").write_text(str(child.pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def tiny(workspace, tiny_models) -> Path:
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    write_params(workspace, model__name="./tiny")
    return workspace


def program(folder: Path, text: str) -> str:
    """A program to be started in vLLM's place."""
    path = folder / "vllm"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return str(path)


def run(folder: Path, *arguments: str, vllm: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AFTERTUNE_VLLM": vllm}
    command = [sys.executable, "-m", "tools.serve", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def ended(folder: Path) -> bool:
    """Whether the child of the program is no more, or waits for whoever should ask how it ended."""
    try:
        return psutil.Process(int((folder / "child").read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_command_names_models_as_the_stages_ask_for_them(tiny, monkeypatch, capsys):
    monkeypatch.setenv("AFTERTUNE_VLLM", program(tiny, ""))
    monkeypatch.setattr(sys, "argv", ["serve", "--show"])
    serve.main()
    said = capsys.readouterr()
    words = shlex.split(said.out)
    assert words[1:5] == ["serve", "./tiny", "--served-model-name", "./tiny"]
    assert "--lora-modules" not in words
    assert "nothing there yet; only the untuned model is served" in said.err
    with_adapter(tiny / "tiny", r=20).save_pretrained(tiny / "models/tuned")
    monkeypatch.setattr(sys, "argv", ["serve", "--show", "--port", "9", "--vllm=--tensor-parallel-size 8"])
    serve.main()
    words = shlex.split(capsys.readouterr().out)
    named = f"{tuned_id(tuning(Path('models/tuned')))}={tiny}/models/tuned"
    assert words[words.index("--lora-modules") + 1] == named
    assert words[words.index("--max-lora-rank") + 1] == "32"
    assert words[-4:] == ["--port", "9", "--tensor-parallel-size", "8"]


def test_without_vllm_it_says_how_to_have_it(tiny, monkeypatch):
    for named, said in (("/no/vllm", "AFTERTUNE_VLLM=/no/vllm: no such program"), ("", "vllm: not on PATH")):
        monkeypatch.setenv("AFTERTUNE_VLLM", named)
        monkeypatch.setenv("PATH", str(tiny))
        with pytest.raises(BadInput, match=rf"(?s){said}.*pip install vllm"):
            serve.executable()


@pytest.mark.slow  # processes that import the libraries
def test_a_command_is_told_where_it_is_and_no_process_outlives_it(tiny):
    vllm = program(tiny, READY)
    ask = "import os, sys; print(os.environ['AFTERTUNE_SERVER']); sys.exit(7)"
    done = run(tiny, "--", sys.executable, "-c", ask, vllm=vllm)
    assert (done.returncode, done.stdout[:17]) == (7, "http://127.0.0.1:")
    assert ended(tiny)
    done = run(tiny, "judge", "--", "printenv", "AFTERTUNE_SERVER_JUDGE", vllm=vllm)
    assert (done.returncode, done.stdout[:17]) == (0, "http://127.0.0.1:")
    done = run(tiny, "--", "/no/such/program", vllm=vllm)
    assert (done.returncode, "/no/such/program: cannot be run" in done.stderr) == (1, True)


@pytest.mark.slow
def test_a_server_that_ends_before_it_answers_is_one_message_with_its_own_words(tiny):
    done = run(tiny, "--", "true", vllm=program(tiny, "raise ValueError('not enough memory')"))
    assert done.returncode == 1
    assert "vLLM ended with exit code 1 before it answered (.ckpt/vllm.log)" in done.stderr
    assert "ValueError: not enough memory" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_a_kill_stop_the_server(tiny, number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AFTERTUNE_VLLM": program(tiny, READY)}
    command = [sys.executable, "-m", "tools.serve"]
    process = subprocess.Popen(command, cwd=tiny, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("export AFTERTUNE_SERVER=http://127.0.0.1:")
    process.send_signal(getattr(signal, number))
    assert process.wait(60) == 128 + getattr(signal, number)
    assert ended(tiny)
