"""How numbers, names and other people's text are written in reports and reviews, in Markdown and HTML alike. Pure."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

Table = Sequence[Mapping[str, Any]]  # rows with the same keys, the columns' names


def pct(value: float | None) -> str:
    """A share as percent with one decimal; a dash for none."""
    return "-" if value is None else f"{value:.1%}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign (never -0.0)."""
    return f"{round(100 * value, 1) + 0:+.1f}"


def pvalue(value: float) -> str:
    """A p-value with three decimals, or that it is below 0.001."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def with_p(value: float) -> str:
    """`p = 0.012` or `p < 0.001`."""
    text = pvalue(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def between(value: float, low: float, high: float) -> str:
    """A share with its 95 % interval."""
    return f"{pct(value)} ({pct(low)} to {pct(high)})"


def changed(value: float, low: float, high: float) -> str:
    """A change in percentage points with its 95 % interval."""
    return f"{points(value)} ({points(low)} to {points(high)})"


def counted(n: int, one: str) -> str:
    """`1 prompt`, `2 prompts`."""
    return f"{n:,} {one if n == 1 else one + 's'}"


def markdown_table(rows: Table) -> str:
    """A Markdown table; cells are shown as they are, but for what would end a cell or a line."""
    cells = [{key: _cell(value) for key, value in row.items()} for row in rows]
    return tabulate(cells, headers="keys", tablefmt="pipe", disable_numparse=True)


def code_table(rows: Table) -> str:
    """A Markdown table of what others chose: every cell is code."""
    return markdown_table([{key: code(value) for key, value in row.items()} for row in rows])


def code(value: Any) -> str:
    """A value that somebody else chose, as Markdown code: inert, on one line, whatever is in it."""
    text = visible(" ".join(str(value).split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text else "``(empty)``"


def visible(text: str) -> str:
    """Text with its control and direction characters shown as U+XXXX, so that it reads in the order it is stored."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else _shown(c) for c in text)


def _shown(character: str) -> str:
    # zero-width joiners build emoji and Indic letters; alone among the format characters they are harmless
    return character if character in "\u200c\u200d" else f"[U+{ord(character):04X}]"


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
