"""The one exception that is the user's to mend; anything else is a bug and shows its traceback."""

import reprlib
from typing import Any


class BadInput(Exception):
    """Something the user gave cannot be used. The message names where it is, what was found and how to mend it."""


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 80, 80, 80


def short(value: Any) -> str:
    """A value as an error message shows it: its repr, with the middle left out where that is long."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of too many digits"
