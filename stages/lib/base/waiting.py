"""One process at a time: who comes second waits for the first, and says for whom and how long."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stages.lib.base.files import write_text

SOON, AGAIN = 2, 60  # seconds until who waits says so, and says it again; then twice as many, and so on
LOOK = 0.2  # seconds between two looks at the lock


@contextmanager
def held(lock: Path, busy: str, holder: Path | None = None) -> Iterator[None]:
    """Within: no other process holds the lock. While one does, wait; `busy` says in a message on stderr what it is at.

    Ctrl-C ends the waiting. The file `holder` (else one beside the lock) says which process holds it. A process that
    holds it may take it again.
    """
    holder = holder or lock.with_suffix(".pid")
    lock.parent.mkdir(parents=True, exist_ok=True)
    own, start, patience = FileLock(lock, is_singleton=True), time.monotonic(), SOON
    while True:
        try:
            own.acquire(timeout=patience, poll_interval=LOOK)
            break
        except Timeout:
            _say(f"{busy}; waiting for {_named(holder)}, {time.monotonic() - start:.0f} s so far")
            patience = max(AGAIN, 2 * patience)
    try:
        if patience > SOON:
            _say(f"{busy} no more: going on after {time.monotonic() - start:.0f} s")
        write_text(holder, f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        own.release()


def _named(holder: Path) -> str:
    try:
        return f"process {holder.read_text(encoding='utf-8')}"
    except FileNotFoundError:  # it has just begun, or is about to end
        return "another process"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
