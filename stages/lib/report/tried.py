"""Which ways of tuning were measured to forget less (runs.yaml's mitigations), from results that are kept; and which
of them to try where safety fell.

`python -m tools.runs seeds 2 --mitigations --profile laptop` measures them, `python -m tools.mitigations` shows all.
"""

import re
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from stages.lib.base.params import Params
from stages.lib.base.texts import visible
from stages.lib.measure.trainings import Kept, configuration, read_kept
from stages.lib.measure.ways import Way as Measured
from stages.lib.measure.ways import compare, helped
from stages.lib.report.published import Study, override, resolve
from stages.lib.report.wording import changed, counted

RESULTS = Path("metrics/runs")
WITH_TUNED = ("lora.strength", "fewshot.system.testing")  # what can still be changed of a model tuned elsewhere


@dataclass(frozen=True)
class Tried:
    """A profile's kept results. `kept`: trainings by way, those of the run that forgets first, one for each seed; those
    without a training are not there. `left_out`: files of other parameters, or older ones, which are no comparison."""

    profile: str
    kept: Mapping[str, list[Kept]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def ways(self, study: Study) -> dict[str, Measured]:
        """What each gave; nothing where the run that forgets has no result."""
        if study.forgets not in self.kept:
            return {}
        return compare(self.kept, study.forgets, [way.name for way in study.ways if way.plain])

    @property
    def model(self) -> str:
        """The name of the model that was tuned."""
        return next(iter(self.kept.values()))[0].params.model.name


def read_tried(study: Study, profile: str, folder: Path = RESULTS) -> Tried:
    """The kept results of the mitigations in a profile. Raises BadInput for a file that is no result."""
    found, left_out = {}, []
    for name in [study.forgets, *(way.name for way in study.ways)]:
        paths = sorted(path for path in (folder / profile).glob(f"{name}*.json") if _is_of(path, name))
        found[name] = {path: read_kept(read_text(path), _outcomes(path), str(path)) for path in paths}
    of_params = [configuration(each.params) for each in found[study.forgets].values() if each]
    if not of_params:
        return Tried(profile)
    plain = Counter(of_params).most_common(1)[0][0]
    like = next(each for each in found[study.forgets].values() if each and configuration(each.params) == plain)
    overrides = {study.forgets: {}, **{way.name: way.overrides for way in study.ways}}
    kept: dict[str, list[Kept]] = {}
    for name, results in found.items():
        wanted = configuration(resolve(like.params.model_dump(), overrides[name], "runs.yaml"))
        seeds = {}
        for path, each in results.items():
            if not each or configuration(each.params) != wanted or _prompts(each) != _prompts(like):
                left_out.append(path.name)
            else:
                seeds.setdefault(each.params.finetune.seed, each)
        if seeds:
            kept[name] = [seeds[seed] for seed in sorted(seeds)]
    return Tried(profile, kept, tuple(left_out))


def what_to_try(study: Study, params: Params, folder: Path = RESULTS) -> dict[str, Any]:
    """`words`, `rows` and `commands` of the ways that were measured to help a model of this size, those that can still
    be tried with these parameters; nothing where there are none."""
    for profile in study.profiles if study.forgets else ():
        tried = read_tried(study, profile, folder)
        if not tried.kept or size_of(tried.model) is None or size_of(tried.model) != size_of(params.model.name):
            continue
        settings = {way.name: way.overrides for way in study.ways}
        found = [way for way in helped(tried.ways(study)) if _can_be_tried(params, settings[way.name])]
        if found:
            trainings = counted(len(tried.kept[study.forgets]), "training")
            model = re.sub(r"[^\w.-]", "", tried.model.rpartition("/")[2])
            alone = " One training each says so." if len(tried.kept[study.forgets]) == 1 else ""
            words = (
                f"These were measured to keep more of it: {study.forgets} of runs.yaml on a model of this size "
                f"({model}, profile {profile}), {trainings} of it, with each and without. Changes are in points, "
                "against it without, with 95 % intervals; that of safety is evidence after correction for all that was "
                f"tried (Holm).{alone} docs/FORGETTING.md says what each does and costs; python -m tools.mitigations "
                "shows all that were tried."
            )
            lines = [f"dvc exp run {command(settings[way.name])}  # {way.name}" for way in found]
            return {"words": words, "rows": [_row(way) for way in found], "commands": "\n".join(lines)}
    return {}


def command(overrides: Mapping[str, Any]) -> str:
    """Overrides as `dvc exp run` takes them, for a shell."""
    settings = (f"-S {shlex.quote(override(name, value))}" for name, value in overrides.items())
    return visible(" ".join(settings)).replace("\n", " ")


def size_of(model: str) -> float | None:
    """Billions of weights, as a model's name says them: 0.5 of Qwen2.5-Coder-0.5B-Instruct; None if it does not."""
    found = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model.rpartition("/")[2].lower())
    return float(found[-1][0]) / (1 if found[-1][1] == "b" else 1000) if found else None


def _row(way: Measured) -> dict[str, str]:
    equal = way.at_equal_gain
    return {
        "way": way.name,
        "safety": changed(way.against["safety"]),
        "math accuracy": changed(way.against["accuracy"]),
        "over-refusal": changed(way.against["over_refusal"]),
        "safety at equal accuracy": changed(equal) if equal else "-",
    }


def _can_be_tried(params: Params, overrides: Mapping[str, Any]) -> bool:
    """Whether it changes something, is not refused, and is no matter of a training that is not done here."""
    try:
        new = resolve(params.model_dump(), overrides, "runs.yaml")
    except BadInput:
        return False
    return configuration(new) != configuration(params) and not (params.tuned.model and {*overrides} - {*WITH_TUNED})


def _is_of(path: Path, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(name)}(-seed\d+)?", path.stem) is not None


def _outcomes(path: Path) -> str:
    return read_text(path.with_suffix(".csv"))


def _prompts(kept: Kept) -> list[tuple[str, ...]]:
    return [(row.subject, row.set, row.id, row.prompt) for row in kept.outcomes]
