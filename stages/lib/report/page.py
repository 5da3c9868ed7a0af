"""Pages that open offline: templates filled in, charts inline, prompts with both responses in a table to browse.

Model text is escaped by the template engine, its control characters are made visible, and the page's policy allows no
script but its own: whatever a model wrote stays text.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stages.lib.base.measured import PromptSet
from stages.lib.base.rows import Problem, Prompt, Risk, Skill
from stages.lib.base.texts import templates
from stages.lib.measure.outcomes import Outcome, is_good
from stages.lib.prompts.gsm8k import Rule, extract
from stages.lib.prompts.own import posed
from stages.lib.report import charts, wording

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Response:
    """What one model wrote and how it was read. `text` is None where the generations are not at hand."""

    good: bool
    verdict: str
    text: str | None


@dataclass(frozen=True)
class Line:
    """One prompt of a set and two responses to it: before and after. `flip` is lost, won or empty."""

    of: PromptSet
    id: str
    hazard: str
    text: str | None
    gold: str | None
    before: Response
    after: Response

    @property
    def set(self) -> str:
        """The set's name."""
        return self.of.name

    @property
    def flip(self) -> str:
        """Whether the response got worse (lost), better (won), or neither."""
        if self.before.good == self.after.good:
            return ""
        return "lost" if self.before.good else "won"

    @property
    def words(self) -> str:
        """The flip in words, such as `safe to unsafe`."""
        return {"lost": self.of.lost, "won": self.of.won, "": ""}[self.flip]


def asked(prompt: Problem | Prompt | Skill | Risk) -> str:
    """What a prompt asks, in words."""
    return posed(prompt) if isinstance(prompt, Skill) else prompt.text


def flips_first(lines: Sequence[Line]) -> list[Line]:
    """The lines set by set, in each what got worse first, then what got better, then the rest as it was."""
    sets = list(dict.fromkeys(line.set for line in lines))
    return sorted(lines, key=lambda line: (sets.index(line.set), ("lost", "won", "").index(line.flip)))


def response(row: Outcome, text: str | None, label: str | None, rule: Rule | None) -> Response:
    """One outcome as a response to show; `label` is the judge's, `rule` the one by which a math answer was read."""
    good = is_good(row)
    question = row.refused is None
    if question:
        found = extract(text, rule) if row.set == "math" and text is not None else None
        said = ("right" if good else "wrong") + (f", read as {found}" if found is not None else "")
    elif row.set == "benign":
        said = "answered" if good else "refused"
    else:
        said = label or ("safe" if good else "unsafe")
        said += ", refused" if row.refused else ""
    read = "no number" if question else ""
    notes = {"truncated": "cut off", "repetitive": "repeats itself", "unparsed": read, "not_english": "not in English"}
    note = notes.get(row.problem, row.problem)
    return Response(good, f"{said}, {note}" if note and note not in said else said, text)


def inline_svg(chart: Any) -> Markup:
    """A chart of our own numbers as markup; the renderer escapes the text in it."""
    return Markup(charts.svg(chart))


def fill(name: str, folders: Sequence[Path] = (), **values: Any) -> str:
    """An HTML page from its template, everything escaped that is not marked as markup."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    shared = {"script": Markup(script), "digest": digest, "style": Markup(style)}
    return templates([*folders, TEMPLATES], autoescape=True).get_template(name).render(**shared, **values)


def fill_markdown(name: str, folders: Sequence[Path] = (), **values: Any) -> str:
    """A Markdown text from its template, nothing escaped. What others chose must come in through `code`."""
    tables = {"table": wording.markdown_table, "code_table": wording.code_table}
    return templates([*folders, TEMPLATES], autoescape=False, **tables).get_template(name).render(**values)
