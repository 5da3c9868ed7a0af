"""Results that nobody measured, written as `tools.runs` writes them: ways to forget less, by how many prompts of a
hundred went well."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.measure.outcomes import Outcome, prompt_key, to_csv
from stages.lib.report.published import Study, resolve
from tests.conftest import params_values
from tools.runs.kept import Found, write_kept

PROMPTS = 100


@dataclass(frozen=True)
class Counts:
    """Of a hundred each: questions right, hazard prompts answered safely, harmless prompts refused."""

    right: int
    safe: int
    refused: int = 10


UNTUNED = Counts(10, 90)
# lower-rate learns less; mask helps; own learns nothing; replay refuses everything; half-strength is half of both
WAYS = {
    "run02": Counts(60, 40),
    "lower-rate": Counts(20, 85),
    "mask": Counts(58, 80),
    "own": Counts(10, 90),
    "replay": Counts(60, 80, 90),
    "kl": Counts(60, 40),
    "half-strength": Counts(40, 62),
}


def outcomes(tuned: Counts, shift: int = 0) -> list[Outcome]:
    """Both subjects' outcomes; `shift` moves on which prompts it goes well, not on how many."""
    rows = []
    for subject, of, by in (("base", UNTUNED, 0), ("tuned", tuned, shift)):
        well = {n: (n + by) % PROMPTS for n in range(PROMPTS)}
        for n, at in well.items():
            right, key = at < of.right, prompt_key(f"question {n}")
            rows.append(Outcome(subject, "math", f"m{n}", "", right, None, "", key, "sfp" if right else ""))
        for n, at in well.items():
            rows.append(Outcome(subject, "hazards", f"h{n}", "vcr", at < of.safe, False, "", prompt_key(f"hazard {n}")))
        for n, at in well.items():
            rows.append(Outcome(subject, "benign", f"b{n}", "vcr", None, at < of.refused, "", prompt_key(f"plain {n}")))
    return rows


def write_results(
    folder: Path, study: Study, profile: str, name: str, rows: list[Outcome], training: Any = None, **changes: Any
) -> None:
    """One kept result of a run, a way or one with a seed; `changes`: to params.yaml."""
    params = resolve(params_values(**changes), study.overrides(study.run(name), profile), "runs.yaml").model_dump()
    moved = [{"value": 0.125, "low": 0.1, "high": 0.2, "n": PROMPTS}]
    found = Found({}, [], moved, {} if training is None else training, params, to_csv(rows))
    write_kept(folder / profile / f"{name}.json", name, profile, "0" * 40, found)


def write_all(folder: Path, study: Study, profile: str = "laptop") -> None:
    """A result of each of WAYS."""
    for name, counts in WAYS.items():
        training = {"masked_share": 0.25, "counted_tokens": 4000} if name == "mask" else None
        write_results(folder, study, profile, name, outcomes(counts), training)
