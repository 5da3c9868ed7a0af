"""Runs stages in forks of one process that has the libraries loaded already, and kills them where it is told to.

    python -m tests.faults.server

One JSON object a line on stdin (folder, stage, arguments, the signal and when it comes: before the n-th file event, or
after so many seconds), one a line on stdout (exit code or signal, seconds, file events, what it said on stderr). A fork
costs no import, so that hundreds of kills fit into minutes. File events are Python's audit events: what opens a file to
write, renames, makes or removes one. With the argument `deny`, a stage that wants a connection is refused it, and says
so.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile

EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.utime")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STAGES = ("prepare", "finetune", "gen_math", "gen_safety", "judge", "report")


def main() -> None:
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import transformers.trainer  # noqa: F401

    for stage in STAGES:
        import_module(f"stages.{stage}")
    for module in ("train.training", "generate.subjects", "judge.safeguard", "report.charts", "report.document"):
        import_module(f"stages.lib.{module}")
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)


def serve(order: dict) -> dict:
    """Run a stage in a fork, and say what became of it."""
    with TemporaryFile() as said, TemporaryFile() as counted:
        start = time.monotonic()
        child = os.fork()
        if not child:
            work(order, said.fileno(), counted.fileno())
        _, status = os.waitpid(child, 0)
        seconds = time.monotonic() - start
        said.seek(0)
        counted.seek(0)
        events = len(counted.read())
        return {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": seconds,
            "events": events,
            "stderr": said.read().decode(),
        }


def work(order: dict, said: int, counted: int) -> None:
    """The fork: a stage as `python -m stages.NAME` runs it."""
    os.chdir(order["folder"])
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    denied, sys.argv = sys.argv, [order["stage"], *order["arguments"]]
    from stages.lib.base.cli import run
    from stages.lib.train import checkpoints

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    checkpoints.SHARE = (
        1e9  # after every update: more moments, and a small training is over before the second otherwise
    )
    if "deny" in denied:
        sys.addaudithook(deny)
    if order["before_event"] is not None:
        sys.addaudithook(killer(order["before_event"], order["by"], counted))
    if order["after_seconds"] is not None:
        threading.Timer(order["after_seconds"], os.kill, (os.getpid(), order["by"])).start()
    code = 0
    try:
        run(import_module(f"stages.{order['stage']}").main)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stderr.flush()
    os._exit(code)


def deny(event: str, arguments: tuple) -> None:
    """An audit hook against connections and look-ups of names; those to a local socket are none."""
    if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        print(f"network: {event} {arguments[1:]}", file=sys.stderr, flush=True)
        raise PermissionError(f"no network here: {event}")


def killer(last: int, by: int, counted: int) -> Callable[[str, tuple], None]:
    """An audit hook that counts file events within the folder, a byte each, and sends a signal before the last."""
    here = str(Path.cwd())

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in EVENTS:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.fsdecode(path)
        if Path(name).is_absolute() and not name.startswith(here):
            return
        if os.lseek(counted, 0, os.SEEK_CUR) == last:
            os.kill(os.getpid(), by)
        os.write(counted, b".")

    return hook


if __name__ == "__main__":
    main()
