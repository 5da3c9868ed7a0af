"""How far the guard agrees with the readers, worked out from what is kept here, without the model or the prompts.

    python -m tools.embedded.labels

labels.jsonl     a response of the untuned or a tuned model to an AILuminate prompt (by release_prompt_id), what each of
                 two readers found in it, and the label that holds: theirs, or where they differ a third reading's
verdicts.jsonl   what the guard in guard/ says of each of them; written by measure.py
"""

from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Literal

from pydantic import Field
from scipy.stats import t as student
from statsmodels.stats.inter_rater import cohens_kappa
from tabulate import tabulate

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.rows import NonEmpty, Row, read_jsonl
from stages.lib.measure.stats import Share, share

HERE = Path(__file__).parents[2] / "models" / "embedded"
LABELS, VERDICTS = HERE / "labels.jsonl", HERE / "verdicts.jsonl"
MODELS = ("base", "words", "gsm8k")  # untuned; tuned as the default run; tuned like run 2 on 384 rows of GSM8K
# (label, verdict): safe and safe, safe and unsafe; unsafe and safe, unsafe and unsafe
CELLS = (((True, True), (True, False)), ((False, True), (False, False)))
SafeOrNot = Literal["safe", "unsafe"]


class Reading(Row):
    """What the reader `id` found in a response."""

    label: SafeOrNot
    refused: bool
    reason: NonEmpty


class Label(Row):
    """A model's response to an AILuminate prompt, labelled by reading it (the rubric is in README.md)."""

    prompt_id: NonEmpty
    model: Literal["base", "words", "gsm8k"]
    response: NonEmpty
    finish: Literal["stop", "length", "repetition"]
    readings: Annotated[list[Reading], Field(min_length=2)]
    label: SafeOrNot
    refused: bool


class Judgement(Row):
    """The guard's verdict on the label of the same id."""

    label: NonEmpty
    p_unsafe: Annotated[float, Field(ge=0, le=1)] | None


def main() -> None:
    no_arguments(__doc__)
    print(report())


def report() -> str:
    """Two Markdown tables: agreement in parts of the labels; the safety rate and its change by readers and by guard."""
    rows = read_jsonl(LABELS, Label)
    said = {row.id: row.label == "safe" for row in read_jsonl(VERDICTS, Judgement)}
    verdicts = [said[row.id] for row in rows]
    return f"{parts(rows, verdicts)}\n\n{changes(rows, verdicts)}"


def parts(rows: Sequence[Label], verdicts: Sequence[bool]) -> str:
    """Agreement of the guard with the labels, by model, by refusal and by how the text ended, as Markdown."""
    chosen: dict[str, Callable[[Label], bool]] = {
        "all": lambda row: True,
        "untuned": lambda row: row.model == "base",
        "tuned on word problems": lambda row: row.model == "words",
        "tuned on GSM8K": lambda row: row.model == "gsm8k",
        "refusals": lambda row: row.refused,
        "no refusals": lambda row: not row.refused,
        "finished": lambda row: row.finish == "stop",
        "repeating or cut off": lambda row: row.finish != "stop",
    }
    table = []
    for name, belongs in chosen.items():
        part = [(row.label == "safe", verdict) for row, verdict in zip(rows, verdicts, strict=True) if belongs(row)]
        found = agreement([label for label, _ in part], [verdict for _, verdict in part])
        table.append(
            {
                "responses": name,
                "n": len(part),
                "kappa": ranged(found["kappa"], found["kappa_low"], found["kappa_high"]),
                "unsafe called safe": of(found["false_safe"]),
                "safe called unsafe": of(found["false_unsafe"]),
            }
        )
    return tabulate(table, headers="keys", tablefmt="github", disable_numparse=True)


def changes(rows: Sequence[Label], verdicts: Sequence[bool]) -> str:
    """The safety rate by the readers and by the guard, and how far the guard's change is off, as Markdown.

    Each prompt was answered by every model, so errors are paired by prompt: the mean difference of the two changes has
    Student's interval over prompts.
    """
    read = {(row.prompt_id, row.model): row.label == "safe" for row in rows}
    said = {(row.prompt_id, row.model): verdict for row, verdict in zip(rows, verdicts, strict=True)}
    prompts = list(dict.fromkeys(row.prompt_id for row in rows))
    table = []
    for model in MODELS:
        line = {"model": model}
        for name, values in (("readers", read), ("guard", said)):
            rate = fmean(values[prompt, model] for prompt in prompts)
            change = rate - fmean(values[prompt, "base"] for prompt in prompts)
            line[f"{name}: safe"] = f"{rate:.3f}"
            line[f"{name}: change"] = "" if model == "base" else f"{change:+.3f}"
        off = [
            (said[prompt, model] - read[prompt, model]) - (said[prompt, "base"] - read[prompt, "base"])
            for prompt in prompts
        ]
        margin = student.ppf(0.975, len(off) - 1) * stdev(off) / sqrt(len(off))
        mean = fmean(off)
        line["change by guard minus by readers"] = (
            "" if model == "base" else f"{mean:+.3f} ({mean - margin:+.3f} to {mean + margin:+.3f})"
        )
        table.append(line)
    return tabulate(table, headers="keys", tablefmt="github", disable_numparse=True)


def agreement(truth: Sequence[bool], verdicts: Sequence[bool]) -> dict[str, float | list[float] | None]:
    """Accuracy, Cohen's kappa with its 95 % interval (None where one of the two says the same of all), and
    [share, low, high] of unsafe called safe and of safe called unsafe (None where there are none)."""
    counts = [[sum((t, v) == cell for t, v in zip(truth, verdicts, strict=True)) for cell in row] for row in CELLS]
    varied = len(set(truth)) == len(set(verdicts)) == 2
    kappa = cohens_kappa(counts) if varied else None
    return {
        "n": len(truth),
        "accuracy": fmean(t == v for t, v in zip(truth, verdicts, strict=True)),
        "kappa": kappa.kappa if kappa else None,
        "kappa_low": kappa.kappa_low if kappa else None,
        "kappa_high": kappa.kappa_upp if kappa else None,
        "false_safe": listed([v for t, v in zip(truth, verdicts, strict=True) if not t]),
        "false_unsafe": listed([not v for t, v in zip(truth, verdicts, strict=True) if t]),
    }


def listed(errors: Sequence[bool]) -> list[float] | None:
    """A share as [value, low, high]."""
    if not errors:
        return None
    found: Share = share(errors)
    return [found.value, found.low, found.high]


def of(values: list[float] | None) -> str:
    return ranged(*values) if values else ""


def ranged(value: float | None, low: float | None, high: float | None) -> str:
    """`0.71 (0.62 to 0.80)`, or nothing where there is no value."""
    return "" if value is None else f"{value:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    run(main)
