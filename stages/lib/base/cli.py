"""How a stage or tool starts and ends: its arguments, and what an error looks like from outside.

Exit codes: 0 done, 1 bad input or a machine that refuses (one message on stderr), 2 wrong arguments, 130 interrupted; a
traceback is a bug.
"""

import argparse
import errno
import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from stages.lib.base import processes
from stages.lib.base.errors import BadInput
from stages.lib.base.measured import SUBJECTS

GIVE_WAY = 3  # seconds in which a launcher, which looks ten times a second, sees that another process ended first
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EPIPE, errno.EFBIG)
# safetensors, and torch.save, which says no more than that a file is shorter than it should be
REFUSALS_IN_WORDS = ("(os error 28)", "(os error 30)", "inline_container.cc", "iostream error")


def run(main: Callable[[], None]) -> None:
    """Run main(); end the process with 1 on BadInput and where the machine refuses, with 130 on Ctrl-C.

    A character that the terminal's encoding does not have is printed as a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # as Python has it for stderr: an arrow is no reason to fail
    if not processes.launched():
        _run(main)
        return
    code = 0
    try:
        _run(main)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the orderly way waits, where another process has failed, for NCCL to hear from it


def _run(main: Callable[[], None]) -> None:
    try:
        main()
        sys.stdout.flush()
    except BadInput as error:
        _end(1, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "interrupted; the same command goes on from here")
    except Exception as error:
        if processes.is_loss_of_another(error):
            time.sleep(GIVE_WAY)  # the other one's end is the cause, which the launcher says; it ends this one then
            sys.exit(1)
        if not _refused(error):
            raise
        where = getattr(error, "filename", None) or "a file"
        _end(1, f"error: {where} cannot be written or read ({error}). Mend that and run this again: nothing is lost")


def _refused(error: Exception) -> bool:
    """Whether the machine refused, not the program: a full or read-only disk, no permission, a terminal gone."""
    if isinstance(error, OSError):
        return error.errno in REFUSALS
    return any(words in str(error) for words in REFUSALS_IN_WORDS)


def _end(code: int, message: str) -> None:
    if not processes.is_first():
        time.sleep(GIVE_WAY)  # the first process may say the same, and its launcher then ends this one
    # what was found in a file must not steer the terminal
    shown = "".join(c if c in "\n\t" or c.isprintable() else f"[U+{ord(c):04X}]" for c in message)
    with suppress(OSError):  # stderr may be gone as well
        print(shown, file=sys.stderr, flush=True)
    sys.exit(code)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the module's docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def no_arguments(doc: str | None) -> None:
    """A stage that takes no arguments: answer --help, refuse anything else."""
    parser(doc).parse_args()


def subject_argument(doc: str | None) -> str:
    """A stage that runs once for each subject: the untuned model (base) or the tuned one."""
    arguments = parser(doc)
    arguments.add_argument("subject", choices=SUBJECTS)
    return arguments.parse_args().subject
