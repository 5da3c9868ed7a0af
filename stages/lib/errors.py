"""The one exception that is the user's to mend; anything else is a bug and shows its traceback."""


class BadInput(Exception):
    """Something the user gave cannot be used. The message names where it is, what was found and how to mend it."""
