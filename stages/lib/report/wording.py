"""How numbers, names and other people's text are written in reports and reviews, in Markdown and HTML alike. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from stages.lib.base.texts import code
from stages.lib.measure.seeds import SeedChange
from stages.lib.measure.stats import Change, Estimate, Share

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


def between(of: Share | Estimate) -> str:
    """A share with its 95 % interval."""
    return f"{pct(of.value)} ({pct(of.low)} to {pct(of.high)})"


def changed(of: Change | Estimate | SeedChange) -> str:
    """A change in percentage points with its 95 % interval."""
    return f"{points(of.value)} ({points(of.low)} to {points(of.high)})"


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


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
