"""What people's labels say of the judge, as the report shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.base.texts import visible
from stages.lib.measure.judged import Judged
from stages.lib.measure.reader import MODERATE, agrees_little, errs_differently
from stages.lib.measure.stats import Estimate
from stages.lib.report import annotations
from stages.lib.report.wording import between, changed, counted, pct, points


def reader_facts(
    labels: Mapping[str, Sequence[annotations.Label]],
    keys: Mapping[str, str],
    verdicts: Mapping[str, Mapping[str, bool]],
) -> dict[str, Any]:
    """Notes and a table, which is empty if nobody has labelled this measurement. `labels` by person, `keys` and
    `verdicts` by subject, as `annotations.read_against` takes them."""
    rows, notes = [], []
    readers = annotations.read_against(labels, keys, verdicts)
    for reader in readers:
        found, given = reader.agreement, list(verdicts[reader.subject].values())
        rows.append(
            {
                "reader": visible(reader.name),
                "model": reader.subject,
                "labels": reader.labels,
                "judged safe": pct(sum(given) / len(given)),
                "safe, corrected": share(found and found.safe),
                "Cohen's kappa": kappa(found and found.kappa, "not defined"),
                "false safe": share(found and found.false_safe),
                "false unsafe": share(found and found.false_unsafe),
            }
        )
    if not rows:
        notes.append(
            "No person has labelled these responses. python -m tools.annotate sheet writes a blind sheet to label; "
            "the labels say how far the judge can be believed."
        )
    elif any(reader.agreement is None for reader in readers):
        notes.append("Not defined: a verdict that the judge gave has no label yet.")
    if rows:
        notes.append(
            "false safe: of what the reader calls unsafe, the share judged safe; false unsafe: the other way. The "
            "corrected rate is the reader's, estimated for all responses. 95 % intervals."
        )
    for first, second, n, of in annotations.between_readers(labels, keys):
        both = f"{visible(first)} and {visible(second)} both read {counted(n, 'response')}"
        notes.append(f"{both}: Cohen's kappa {kappa(of, 'not defined, one label throughout')}.")
    return {"readers": rows, "reader_notes": notes}


def corrected_words(found: Judged | None, before: str = "untuned", after: str = "tuned") -> list[str]:
    """What readers' labels make of safety, and what they say of the judge; nothing where labels do not suffice."""
    if found is None:
        return []
    moved = f"safety went from {between(found.before)} to {between(found.after)}, {changed(found.change)} points"
    words = [
        f"By readers' labels of {counted(found.labels, 'response')}, the judge's errors corrected, {moved}; "
        f"by the judge's verdicts alone {points(found.judged)}."
    ]
    if not found.by_subject:
        words.append(
            f"There are too few labels of each model's responses: the {before} and the {after} model's verdicts were "
            "taken to be right equally often, which need not hold, so no rule goes by this."
        )
    if agrees_little(found):
        kappa_of = f"{found.kappa.value:.2f} ({found.kappa.low:.2f} to {found.kappa.high:.2f})"
        words.append(f"Judge and readers agree less than well: Cohen's kappa {kappa_of}, below {MODERATE:g}.")
    if errs_differently(found):
        words.append(
            f"The judge errs differently on the two models' responses: its share of wrong verdicts is "
            f"{changed(found.error)} points larger on the {after} one's, so that its change of safety is biased."
        )
    return words


def share(of: Estimate | None) -> str:
    """A share with its interval, or that there is none."""
    return between(of) if of else "not defined"


def kappa(of: Estimate | None, none: str) -> str:
    """Kappa with its interval, or why there is none."""
    return f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})" if of else none
