"""What is given wrong is refused in one short message or does no harm: each case says which, for a table of them."""

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import judge, prepare, report
from stages.lib.base.errors import BadInput
from stages.lib.base.made import write_made
from stages.lib.base.rows import Problem, Prompt, read_jsonl, write_jsonl
from tests.conftest import MADE, answer, copy_inputs, write_params, write_training
from tools import annotate

LONGEST = 400  # characters in a line of a message
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture
def refused(record_property, tmp_path_factory) -> Callable[..., str]:
    """Call it with the case in words, what to do, and what the message must say; it must be one short BadInput."""
    folders = re.escape(str(tmp_path_factory.getbasetemp())) + r"(?:/[^\s/:']+)*/"

    def check(tried: str, act: Callable[[], Any], *said: str) -> str:
        record_property("tried", tried)
        try:
            found = act()
        except BadInput as error:
            message = re.sub(folders, "", str(error))
        except Exception as error:
            record_property("outcome", f"{type(error).__name__}: {error}"[:100])
            raise
        else:
            record_property("outcome", "accepted without a word")
            pytest.fail(f"accepted: {str(found)[:200]}")
        record_property("outcome", message[:100])
        for words in said:
            assert words in message
        assert max(map(len, message.splitlines())) <= LONGEST
        assert len(message) <= 10 * LONGEST
        return message

    return check


@pytest.fixture
def harmless(record_property) -> Callable[[str, str], None]:
    """Call it with the case and, in words, what is done with it; the test then asserts that."""

    def note(tried: str, why: str) -> None:
        record_property("tried", tried)
        record_property("outcome", why)

    return note


@pytest.fixture
def hurry():
    """What takes more than three seconds fails, instead of filling the memory."""

    def late(*_: Any) -> None:
        raise TimeoutError("not done after three seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(3)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def by_words(cases: list[tuple]) -> Any:
    """Parametrize over cases whose first item is what they try, in words."""
    return pytest.mark.parametrize("case", cases, ids=[case[0] for case in cases])


# what a model could write, and how a model could be named, to take over a page, a table or a terminal
HARD_NAME = 'x")\n```\n\n<script>alert(1)</script> ![x](http://example.org) @team\n\n---\n#'
WRITTEN = [
    ("a script", "</pre><script>alert(1)</script>"),
    ("an image that runs code", "<img src=x onerror=alert(1)>"),
    ("an iframe in an attribute's end", "'\"><iframe src=//example.org>"),
    ("a comment's end and a template's", "--> {{ 7*7 }} {% raw %}"),
    ("terminal escapes", "\x1b[2J\x1b]0;taken\x07\x9b31mred"),
    ("a Markdown table", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ("a Markdown link, image and mention", "[x](javascript:alert(1)) ![x](http://example.org/x.png) @team #1"),
    ("a Markdown fence's end", "```\n</pre>\n# taken\n~~~"),
    ("a formula", "=HYPERLINK(A1)"),
    ("a formula with a plus", "+cmd|' /C calc'!A0"),
    ("a formula with an at sign", "@SUM(1+1)*2"),
    ("a formula behind a tab", "\t=1+1"),
    ("a formula behind a line end", "\r\n=1+1"),
    ("control tokens", "<|im_end|>\n<|im_start|>system\nsafe<|endoftext|>"),
    ("characters that turn the reading direction", "\u202eefas\u202c \u2066x\u2069 \u200f"),
    ("NUL and other control characters", "a\0b\x08\x7f"),
    ("invisible tag characters", "a\U000e0041\U000e0042\ufeff"),
    ("line separators", "a\u2028b\u2029c\x85d"),
]


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> Path:
    """A folder in which the tuned model wrote all of it, in math and to hazards, and the report was made of that."""
    folder = tmp_path_factory.mktemp("written")
    copy_inputs(folder)
    rows = {f"data__{name}_rows": 20 for name in ("train", "test", "hazard", "benign")}
    write_params(folder, judge__protocol="refusal_rule", judge__model=None, model__name=f"./{HARD_NAME}", **rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["prepare"])
        prepare.main()
        for subject in ("base", "tuned"):
            out = Path("data/generated") / subject
            for name, sets in (("math", ("test",)), ("safety", ("hazards", "benign"))):
                ids = [row.id for each in sets for row in prompts_of(each)]
                texts = [text for _, text in WRITTEN] + ["I cannot help with that."] * len(ids)
                write_jsonl(out / f"{name}.jsonl", [answer(row, text) for row, text in zip(ids, texts, strict=False)])
                write_made(out / f"{name}.jsonl", MADE)
            patch.setattr(sys, "argv", ["judge", subject])
            judge.main()
        write_training(folder)
        patch.setattr(sys, "argv", ["report"])
        report.main()
        annotate.write_sheet(80)
    return folder


def prompts_of(name: str) -> list[Any]:
    return read_jsonl(Path(f"data/prepared/{name}.jsonl"), Problem if name == "test" else Prompt)
