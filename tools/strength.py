"""How much of the tuning to keep: one training, measured at several strengths of its adapter.

    python -m tools.strength                          lora.strength 0.25, 0.5, 0.75 and 1
    python -m tools.strength 0.3 0.6 -S lora.r=16     these, of a training with other parameters

Each strength is a DVC experiment (strength-0.5) of the commit that is checked out, without uncommitted changes, in a
clone under .ckpt/, as `tools.runs` makes it: what does not depend on the strength, such as the training and the untuned
model's answers, is done once. Prints accuracy, safety, over-refusal and how far the model has moved at each, with
95 % intervals; `dvc exp show` has them, too. Strength 0 is the untuned model, which stands in the first line.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from stages.lib.base.cli import parser, run
from stages.lib.base.measured import measure_name
from stages.lib.base.yaml_files import read_yaml
from stages.lib.measure.moved import Mean
from stages.lib.measure.stats import Paired, Share
from stages.lib.measure.written import read_detail
from stages.lib.report.published import resolve
from stages.lib.report.wording import Table, between, markdown_table
from tools.commands import check_repository, git
from tools.runs.experiments import CKPT, WORK, experiment, named, one_at_a_time
from tools.runs.overrides import parse_settings

STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def main() -> None:
    arguments = parse_arguments()
    check_repository()
    found = {}
    settings = {strength: {**arguments.settings, "lora.strength": strength} for strength in arguments.strengths}
    for overrides in settings.values():
        resolve(read_yaml(Path("params.yaml")), overrides, "-S")
    with one_at_a_time():
        commit = git("rev-parse", "HEAD")
        for strength, overrides in settings.items():
            name = f"strength-{strength:g}"
            experiment(name, overrides, commit, WORK / "clone", CKPT)
            detail = json.loads(git("show", f"{named(name, commit)}:metrics/detail.json"))
            found[strength] = read_detail(detail)[0], Mean(**detail["moved"][0]) if detail["moved"] else None
    print(markdown_table(table(found)))


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("strengths", nargs="*", type=float, help="from 0 to 1")
    top.add_argument("-S", action="append", default=[], metavar="NAME=VALUE", help="another parameter of the training")
    arguments = top.parse_args()
    arguments.strengths = sorted(set(arguments.strengths or STRENGTHS))
    arguments.settings = parse_settings(arguments.S)
    return arguments


def table(found: Mapping[float, tuple[Mapping[str, Paired], Mean | None]]) -> Table:
    """One line for the untuned model, one for each strength, by which the measures and the divergence were found."""
    untuned = next(iter(found.values()))[0]
    lines: list[tuple[str, dict[str, Share], str]] = [
        ("untuned", {name: pair.before for name, pair in untuned.items()}, "0")
    ]
    for strength, (measures, moved) in found.items():
        nats = f"{moved.value:.3g} ({moved.low:.3g} to {moved.high:.3g})" if moved else "-"
        lines.append((f"{strength:g}", {name: pair.after for name, pair in measures.items()}, nats))
    return [
        {
            "strength": first,
            **{measure_name(name): between(of[name]) for name in of},
            "moved, nats by the token": nats,
        }
        for first, of, nats in lines
    ]


if __name__ == "__main__":
    run(main)
