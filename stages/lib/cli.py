"""How a stage or tool starts and ends: its arguments, and what an error looks like from outside.

Exit codes: 0 done, 1 bad input (one message on stderr), 2 wrong arguments, 130 interrupted; a traceback is a bug.
"""

import argparse
import sys
from collections.abc import Callable

from stages.lib.errors import BadInput

SUBJECTS = ("base", "tuned")


def run(main: Callable[[], None]) -> None:
    """Run main(); end the process with 1 on BadInput and with 130 on Ctrl-C."""
    try:
        main()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


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
