"""What a model is trained on, where the untuned model has a say in it: it is asked once, and what it said is kept.

With the default parameters nothing here is called. An `Engine` is the untuned model, loaded for generation; a training
row is as `encode` makes it. Solutions that it writes itself: Self-Output of arXiv:2501.14315 (several drawn at
temperature 0.7, the right one with the lowest perplexity trained on); shown the published one first: SDFT,
arXiv:2402.13669.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem, Prompt
from stages.lib.base.sections import Data, Finetune
from stages.lib.generate.engine import Engine, drawn, greedy
from stages.lib.prompts.chat import (
    math_messages,
    render_completion,
    render_prompt,
    rewriting_messages,
    safety_messages,
)
from stages.lib.prompts.gsm8k import is_correct
from stages.lib.train.encoding import counted, encode, row
from stages.lib.train.packing import Row
from stages.lib.train.untuned import mask, perplexity, token_losses

TEMPERATURE = 0.7
SOLUTION_TOKENS, REPLAY_TOKENS = 512, 256  # where what the untuned model writes is cut off
BATCH = 64  # texts that it writes at a time


@dataclass(frozen=True)
class Material:
    """Training rows of the skill, rows replayed beside them, and what was found on the way, by name."""

    rows: list[Row]
    replayed: list[Row]
    found: dict[str, float]


def with_a_say(
    asked: Engine,
    problems: Sequence[Problem],
    shots: Sequence[Problem],
    replay: Sequence[Prompt],
    data: Data,
    settings: Finetune,
    system: str | None = None,
) -> Material:
    """What to train on by data.solutions, finetune.mask_perplexity and finetune.replay.

    Raises BadInput where that is nothing.
    """
    said: Sequence[str | None] = [None] * len(problems)
    found: dict[str, float] = {}
    if data.solutions != "published":
        said, found = own_solutions(asked, problems, shots, data, system)
        if data.unsolved == "none":
            problems = [problem for problem, text in zip(problems, said, strict=True) if text]
            said = [text for text in said if text]
    rows = [
        encode(asked.tokenizer, problem, shots, settings.loss, text, system)
        for problem, text in zip(problems, said, strict=True)
    ]
    if settings.mask_perplexity:
        rows, masked = without_surprises(asked, rows, settings.mask_perplexity)
        found |= masked
    replayed = answers(asked, replay, system)
    return Material(rows, replayed, found | ({"replayed": len(replayed)} if replay else {}))


def own_solutions(
    asked: Engine, problems: Sequence[Problem], shots: Sequence[Problem], data: Data, system: str | None = None
) -> tuple[list[str | None], dict[str, float]]:
    """For each problem the untuned model's least perplexing right solution, None where it wrote none; what was found.

    Right is one that ends by itself, has some working, and whose number the strict rule reads, so that its form is the
    one that is asked for: shown the published one, a model likes to repeat its last line alone. Perplexities are
    geometric means over the solved problems, of own and published solutions.
    """
    tokenizer, keep = asked.tokenizer, asked.keep
    if data.solutions == "own":
        prompts = [render_prompt(tokenizer, math_messages(problem.question, shots, system)) for problem in problems]
    else:
        prompts = [render_prompt(tokenizer, rewriting_messages(problem, system)) for problem in problems]
    several = [prompt for prompt in prompts for _ in range(data.samples)]
    seeds = [f"{data.seed}/{problem.id}/{n}" for problem in problems for n in range(data.samples)]
    texts = drawn(asked, several, SOLUTION_TOKENS, f"{data.solutions} solutions", TEMPERATURE, seeds)
    right: list[tuple[int, str | None]] = []  # (which problem, a right solution of it; None: the published one)
    for n, problem in enumerate(problems):
        written = texts[n * data.samples : (n + 1) * data.samples]
        solved = [text.text.strip() for text in written if text.finish == "stop"]
        solved = [
            text for text in dict.fromkeys(solved) if is_worked(text) and is_correct(text, problem.gold, "strict")
        ]
        right += [(n, text) for text in [*solved, None] if solved]
    if not right:
        if data.unsolved == "none":
            raise BadInput(
                f"data.solutions: the untuned model wrote a right solution to none of {len(problems)} problems; set "
                "data.solutions to rewritten, data.unsolved to published, or data.samples higher"
            )
        return [None] * len(problems), {"solved_share": 0.0}
    rows = [encode(tokenizer, problems[n], shots, "answer", text, system) for n, text in right]
    losses = token_losses(asked.model, rows, keep)
    perplexities: dict[int, dict[str | None, float]] = {}
    for (n, text), each, of in zip(right, rows, losses, strict=True):
        perplexities.setdefault(n, {})[text] = perplexity(each, of)
    published = {n: of.pop(None) for n, of in perplexities.items()}
    best = {n: min(of, key=of.__getitem__) for n, of in perplexities.items()}
    return [best.get(n) for n in range(len(problems))], {
        "solved_share": len(best) / len(problems),
        "perplexity_own": exp(fmean(log(perplexities[n][text]) for n, text in best.items())),
        "perplexity_published": exp(fmean(map(log, published.values()))),
    }


def is_worked(text: str) -> bool:
    """Whether a number stands before the answer."""
    return any(character.isdigit() for character in text.partition("####")[0])


def without_surprises(asked: Engine, rows: Sequence[Row], threshold: float) -> tuple[list[Row], dict[str, float]]:
    """The rows that finetune.mask_perplexity leaves something of, and what share of their tokens it masks.

    Raises BadInput where it leaves nothing of any row.
    """
    left = mask(rows, token_losses(asked.model, rows, asked.keep), threshold)
    if not left:
        raise BadInput(
            f"finetune.mask_perplexity: every token of every row is more perplexing than {threshold:g} to the untuned "
            "model; set it higher"
        )
    before, after = counted(rows), counted(left)
    masked = {"counted_tokens": before, "masked_share": 1 - after / before, "rows_without_loss": len(rows) - len(left)}
    return left, masked


def answers(asked: Engine, prompts: Sequence[Prompt], system: str | None = None) -> list[Row]:
    """Training rows of the untuned model's greedy answers, whose tokens alone carry loss.

    An answer that was cut off is not taught to end there; an empty one, and one that repeats itself, is left out.
    """
    tokenizer, rows = asked.tokenizer, []
    shown = [safety_messages(prompt.text, system) for prompt in prompts]
    rendered = [render_prompt(tokenizer, messages) for messages in shown]
    for messages, prompt, text in zip(
        shown, rendered, greedy(asked, rendered, REPLAY_TOKENS, "replay", end_repetition=True), strict=True
    ):
        if text.text.strip() and text.finish != "repetition":
            whole = text.finish == "stop"
            said = render_completion(tokenizer, messages, text.text) if whole else text.text
            rows.append(row(tokenizer, prompt, said, "answer"))
    return rows
