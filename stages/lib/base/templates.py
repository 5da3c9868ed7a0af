"""Templates of texts and pages."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.lib.base.texts import code, quoted, visible


def environment(folders: Sequence[Path], autoescape: bool, **filters: Callable) -> Environment:
    """Where the templates of these folders are filled in: what one names must be given. Without `autoescape`, what
    others chose must go through `code` or `quoted`."""
    made = Environment(
        loader=FileSystemLoader(folders),
        undefined=StrictUndefined,
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(code=code, quoted=quoted, visible=visible, **filters)
    return made
