"""Text that somebody else chose or a model wrote, so that it can be shown: it stays text, in the order it is stored."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


def visible(text: str) -> str:
    """Text with its control and direction characters shown as U+XXXX, so that it reads in the order it is stored."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _shown(c) for c in text)


def code(value: Any) -> str:
    """A value that somebody else chose, as Markdown code: inert, on one line, whatever is in it."""
    text = visible(" ".join(str(value).split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else "``(empty)``"


def quoted(text: str) -> str:
    """Text in double quotes, as YAML and Python alike read it: what cannot be printed is escaped."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def coded(text: str) -> Markup:
    """A sentence of this project's own for a page: what stands in backticks, a command, is set as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def templates(folders: Sequence[Path], autoescape: bool, **filters: Callable) -> Environment:
    """The templates of these folders: what one names must be given. Without `autoescape`, what others chose must go
    through `code` or `quoted`."""
    options = {"autoescape": autoescape, "trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    made = Environment(loader=FileSystemLoader(folders), undefined=StrictUndefined, **options)
    made.filters.update(code=code, coded=coded, quoted=quoted, visible=visible, **filters)
    return made


def _shown(character: str) -> str:
    # zero-width joiners build emoji and Indic letters; alone among the format characters they are harmless
    return character if character in "\u200c\u200d" else f"[U+{ord(character):04X}]"
