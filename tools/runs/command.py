"""The ten published runs: list them, show a run's parameters, run them one at a time.

    python -m tools.runs list                           the table: hyperparameters, published and measured results
    python -m tools.runs show run04 [--profile paper]   the run's complete parameters (--json for machines)
    python -m tools.runs run run04 [--profile paper]    dvc exp run in a clone of its own, result kept in metrics/runs/
    python -m tools.runs run --all [-S data.train_rows=shortest_third/512]   every run alike, otherwise; also for submit
    python -m tools.runs seeds 6 [--run run02 --profile laptop] [--submit]   params.yaml, or a run, with 6 seeds
    python -m tools.runs seeds 2 --mitigations --profile laptop [--submit]   each way to forget less, and without any
    python -m tools.runs results [--profile paper]      measured beside published with intervals, and a picture of them
    python -m tools.runs submit --all [--profile paper] [--partition P] [--gres gpu:1] [--time 8:00:00]   on Slurm
    python -m tools.runs status [--profile paper]       submitted runs: waiting, running (how far), done, failed (why)
    python -m tools.runs collect [--profile paper]      keep the results that have come back; at any time, also twice

Profiles are in runs.yaml: embedded (the default, the smallest model on this repository's data), laptop (Qwen2.5-Coder-
0.5B on real data, hours on a CPU) and paper. A result is committed as metrics/runs/<profile>/<run>.json, with its
outcomes prompt by prompt beside it as .csv. Stages whose parameters did not change come from DVC's run cache, so runs
that share their untuned model's answers compute them once.

`run` measures the commit that is checked out, without uncommitted changes, in a clone under .ckpt/ that shares DVC's
cache; it touches nothing of this checkout but the result. Killed at any moment, the same command goes on: a run whose
committed result is of these parameters is passed over while nothing that decides it was committed since (remove the
result to run it again), finished stages come from the cache, the stage at work from its checkpoint, and the clone that
was left is made anew.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from stages.lib.base.cli import parser
from stages.lib.base.errors import BadInput
from stages.lib.base.yaml_files import dump_yaml, read_yaml
from stages.lib.measure.stats import Paired, Share
from stages.lib.report.published import DEFAULT, RUNS, Run, Study, load_study, resolve
from stages.lib.report.wording import Table, markdown_table
from tools.runs import slurm
from tools.runs.experiments import (
    RESULTS,
    Result,
    kept_results,
    measured,
    one_at_a_time,
    read_result,
    result_file,
    run_one,
)
from tools.runs.overrides import with_overrides

SEEDS = 64  # at most
# sbatch's options that `submit` passes on
SBATCH = ("partition", "gres", "time", "cpus-per-task", "mem", "constraint", "account", "qos")


def main() -> None:
    arguments = parse_arguments()
    study = load_study()
    if arguments.command == "list":
        print(markdown_table(table(study)))
    elif arguments.command == "show":
        show(study, study.run(arguments.run), arguments.profile, arguments.json)
    elif arguments.command == "results":
        results(study, arguments.profile)
    elif arguments.command == "status":
        print(markdown_table(slurm.status(study, arguments.profile)))
    elif arguments.command == "collect":
        slurm.collect(study, arguments.profile)
    elif arguments.command == "seeds":
        seeds(study, arguments)
    elif arguments.command == "submit":
        slurm.submit(chosen(study, arguments), arguments.profile, sbatch_options(arguments), arguments.set)
    else:
        study = with_overrides(study, arguments.set)
        with one_at_a_time():
            for each in chosen(study, arguments):
                run_one(study, each, arguments.profile)


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the ten runs, published beside measured")
    showing = commands.add_parser("show", help="a run's complete parameters")
    showing.add_argument("run")
    showing.add_argument("--json", action="store_true", help="JSON, nested as in params.yaml")
    running = commands.add_parser("run", help="run some, or all ten, with dvc exp run, one after the other")
    resulting = commands.add_parser("results", help="the measured runs with intervals, and their picture")
    submitting = commands.add_parser("submit", help="run some, or all ten, as a Slurm job array")
    for each in (running, submitting):
        each.add_argument("runs", nargs="*", metavar="run")
        each.add_argument("--all", action="store_true", help="all ten")
        other = "another parameter, for every run alike"
        each.add_argument("-S", "--set", action="append", default=[], metavar="NAME=VALUE", help=other)
    seeding = commands.add_parser("seeds", help="train one configuration with so many seeds")
    seeding.add_argument("count", type=int, metavar="N", help="finetune.seed as it stands, and the N - 1 after it")
    which = seeding.add_mutually_exclusive_group()
    which.add_argument("--run", default=DEFAULT.name, help="one of the ten, instead of params.yaml as it stands")
    which.add_argument(
        "--mitigations", action="store_true", help="all of runs.yaml's mitigations, and the run they are of"
    )
    seeding.add_argument("--submit", action="store_true", help="as a Slurm job array")
    for each, name in product((submitting, seeding), SBATCH):
        each.add_argument(f"--{name}", help="as sbatch takes it")
    asking = commands.add_parser("status", help="how far the submitted runs are")
    collecting = commands.add_parser("collect", help="keep the results of submitted runs")
    for each in (showing, running, resulting, submitting, asking, collecting):
        each.add_argument("--profile", default="embedded", help="embedded (default), laptop, paper; default for seeds")
    seeding.add_argument(
        "--profile", default=DEFAULT.name, help="with --run or --mitigations: embedded, laptop or paper"
    )
    arguments = top.parse_args()
    if arguments.command == "seeds" and not 1 <= arguments.count <= SEEDS:
        seeding.error(f"N: from 1 to {SEEDS}")
    if arguments.command in ("run", "submit") and bool(arguments.runs) == arguments.all:
        commands.choices[arguments.command].error("name runs, or give --all")
    return arguments


def chosen(study: Study, arguments: argparse.Namespace) -> Sequence[Run]:
    """The runs that the command line names."""
    return study.runs if arguments.all else [study.run(name) for name in arguments.runs]


def seeds(study: Study, arguments: argparse.Namespace) -> None:
    """Train one configuration, or each of the mitigations, with several seeds, each kept like a run, and say how far
    they spread: seed by seed, so that the first of all are there first. The untuned model is the same for all, so DVC's
    run cache has it from the first on."""
    each_of, profile = study.mitigations if arguments.mitigations else [study.run(arguments.run)], arguments.profile
    if not each_of:
        raise BadInput(f"{RUNS}: no mitigations there")
    params = resolve(read_yaml(Path("params.yaml")), study.overrides(each_of[0], profile), str(RUNS))
    if params.tuned.model:
        raise BadInput(f"tuned.model is {params.tuned.model}: nothing is trained, so no seed makes a difference")
    first = params.finetune.seed
    runs = [study.run(f"{of.name}-seed{first + number}") for number in range(arguments.count) for of in each_of]
    if arguments.submit:
        slurm.submit(runs, profile, sbatch_options(arguments))
        return
    with one_at_a_time():
        for each in runs:
            run_one(study, each, profile)
    for place in range(len(each_of)):
        kept = [(each, read_result(result_file(each, profile))) for each in runs[place :: len(each_of)]]
        print(markdown_table(seeds_table(kept)))


def seeds_table(kept: Sequence[tuple[Run, Result]]) -> Table:
    """Each seed's rates, then their mean and standard deviation, in percent and points."""
    measured = {
        "accuracy": [100 * result.accuracy.after.value for _, result in kept],
        "safety": [100 * result.safety.after.value for _, result in kept],
        "over-refusal": [100 * result.over_refusal["tuned"] for _, result in kept],
    }
    names = [each.name for each, _ in kept]
    rows = [{"": name, **{of: f"{values[at]:.1f}" for of, values in measured.items()}} for at, name in enumerate(names)]
    rows.append({"": "mean", **{of: f"{fmean(values):.1f}" for of, values in measured.items()}})
    if len(kept) > 1:
        rows.append({"": "standard deviation", **{of: f"{stdev(values):.1f}" for of, values in measured.items()}})
    return rows


def sbatch_options(arguments: argparse.Namespace) -> list[str]:
    """What of the command line is sbatch's."""
    return [f"--{name}={value}" for name in SBATCH if (value := vars(arguments)[name.replace("-", "_")])]


def show(study: Study, run: Run, profile: str, as_json: bool) -> None:
    """Print a run's parameters, complete and checked, as YAML or JSON."""
    values = resolve(read_yaml(Path("params.yaml")), study.overrides(run, profile), str(RUNS)).model_dump()
    if as_json:
        print(json.dumps(values, indent=2))
        return
    print(f"# {run.name}, profile {profile}\n{dump_yaml(values)}", end="")


def table(study: Study) -> Table:
    """One line per run: hyperparameters, published results, and what was measured here in each profile."""
    rows = []
    for each in study.runs:
        o = each.overrides
        row = {
            "run": each.name,
            "size": each.size,
            "r/alpha": f"{o['lora.r']}/{o['lora.alpha']}",
            "epochs": o["finetune.epochs"],
            "shots": o["fewshot.shots"],
            "dropout": o["lora.dropout"],
            "learning rate": f"{o['finetune.learning_rate']:.0e}".replace("e-0", "e-"),
            "warm-up": o["finetune.warmup_ratio"],
            "weight decay": o["finetune.weight_decay"],
            "new tokens": o["gen_math.max_new_tokens"],
            "published accuracy / safety": f"{each.accuracy:.2f} / {each.safety:.2f}",
        }
        for profile in study.profiles:
            row[f"measured, {profile}"] = measured(result_file(each, profile))
        rows.append(row)
    return rows


def results(study: Study, profile: str) -> None:
    """Print a profile's measured runs as a table and draw them as metrics/runs/<profile>/plane.png."""
    from stages.lib.report import charts

    kept = [(each, read_result(path)) for each, path in kept_results(study, profile)]
    print(results_table(kept))
    picture = RESULTS / profile / "plane.png"
    charts.save_png(charts.plane(points(kept), study.baselines), picture)
    print(f"\nsee {picture}")


def results_table(kept: Sequence[tuple[Run, Result]]) -> str:
    """The measured runs beside the published ones, as Markdown."""
    return markdown_table(
        [
            {
                "run": each.name,
                "published accuracy": f"{each.accuracy:.2f}",
                "accuracy here": compared(result.accuracy),
                "published safety": f"{each.safety:.2f}",
                "safety here": compared(result.safety),
                "over-refusal here": "{base:.2f} → {tuned:.2f}".format(**result.over_refusal),
            }
            for each, result in kept
        ]
    )


def compared(pair: Paired) -> str:
    """Before and after, the change with its interval and p."""
    change = pair.change
    p = f"p {change.p:.2f}" if change.p >= 0.01 else f"p {change.p:.0e}"
    interval = f"{change.value:+.3f}, {change.low:+.3f} to {change.high:+.3f}"
    return f"{pair.before.value:.3f} → {pair.after.value:.3f} ({interval}, {p})"


def points(kept: Sequence[tuple[Run, Result]]) -> list[Any]:
    """Points of the plane. Runs with one result share a point, and so do the untuned models with as many shots."""
    from stages.lib.report.charts import Point

    names: dict[tuple[str, Share, Share], set[str]] = {}
    for each, result in kept:
        number, shots = each.name.removeprefix("run").lstrip("0"), str(result.params["fewshot"]["shots"])
        accuracy, safety = result.accuracy, result.safety
        names.setdefault(("base", accuracy.before, safety.before), set()).add(shots)
        names.setdefault(("tuned", accuracy.after, safety.after), set()).add(number)
    titles = {"base": "untuned, shots", "tuned": "run"}
    return [
        Point(subject, f"{titles[subject]} {', '.join(sorted(listed, key=int))}", accuracy, safety)
        for (subject, accuracy, safety), listed in names.items()
    ]
