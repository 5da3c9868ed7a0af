"""Training rows: a problem and its solution, or any prompt and completion, as the tokens that a model is trained on."""

from collections.abc import Sequence
from typing import Any

from stages.lib.base.rows import Problem
from stages.lib.prompts.chat import math_messages, render_completion, render_prompt
from stages.lib.prompts.gsm8k import SOLUTION
from stages.lib.train.packing import IGNORED, Row


def encode(
    tokenizer: Any,
    problem: Problem,
    shots: Sequence[Problem],
    loss: str,
    said: str | None = None,
    system: str | None = None,
) -> Row:
    """input_ids and labels of one training row: prompt as in testing, then the worked solution and the end of turn.

    loss `answer` counts the solution's tokens only, `text` every token, examples included. With `said`, that stands in
    place of the published solution; `system` is the system turn, which may be another one in testing.
    """
    messages = math_messages(problem.question, shots, system)
    answer = said or SOLUTION.format(answer=problem.answer)
    return row(tokenizer, render_prompt(tokenizer, messages), render_completion(tokenizer, messages, answer), loss)


def row(tokenizer: Any, prompt: str, completion: str, loss: str) -> Row:
    """input_ids and labels of a rendered prompt and its completion; loss as in `encode`."""
    shown, written = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
    counted = shown if loss == "text" else [IGNORED] * len(shown)
    return {"input_ids": shown + written, "labels": counted + written}


def counted(rows: Sequence[Row]) -> int:
    """How many tokens carry loss."""
    return sum(label != IGNORED for row in rows for label in row["labels"][1:])
