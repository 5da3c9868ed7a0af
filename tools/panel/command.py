"""What else did the tuning change? Any task of lm-evaluation-harness on the untuned and the tuned model.

    make panel TASKS=arc_easy,ifeval                    installs the harness where it is not, then runs the next line
    python -m tools.panel arc_easy,ifeval               metrics/panel.json, and a table
    python -m tools.panel arc_easy --limit 100          on the first 100 questions of each task
    python -m tools.panel mine --include-path tasks     on tasks of one's own, YAML files in that folder

The models are those of params.yaml and models/tuned, loaded as the stages load them, in the harness's own loop, with
the chat template and the system turn of testing (fewshot.system.testing). Each task says by itself how it is asked and
scored; its data come from the hub. Standard errors are the harness's. Where its outcomes are right or wrong question by
question, the change is paired, with its 95 % interval and p (Tango's score). It takes several times as long as this
project's own stages would for as many questions.
"""

import argparse
from pathlib import Path
from typing import Any

from stages.lib.base.cli import parser
from stages.lib.base.errors import BadInput
from stages.lib.base.files import rounded, write_json
from stages.lib.base.measured import SUBJECTS, weights
from stages.lib.base.params import load_params
from stages.lib.base.sections import started_from
from stages.lib.report.wording import markdown_table
from tools.panel.compared import compared, table

PANEL = Path("metrics/panel.json")


def main() -> None:
    arguments = parse_arguments()
    params = load_params()
    if not weights("tuned").is_dir():
        raise BadInput(f"{weights('tuned')}: no such folder; `dvc repro` makes it, `dvc pull` brings it")

    from tools.panel import harness

    tasks = harness.find(arguments.tasks, arguments.include_path)
    settings = {
        "num_fewshot": arguments.shots,
        "limit": arguments.limit,
        "batch_size": arguments.batch_size,
        "system_instruction": params.fewshot.system.testing,
    }
    found: dict[str, Any] = {}
    for subject in SUBJECTS:
        model = started_from(subject, params.model, params.base)
        found[subject] = harness.measure(subject, model, params.model, params.lora.strength, tasks, settings)
    lines = compared(*(found[subject].results for subject in SUBJECTS))
    made = {subject: found[subject].made for subject in SUBJECTS}
    write_json(PANEL, rounded({"tasks": lines, "settings": settings, "made": made}))
    print(f"{markdown_table(table(lines))}\n\nsee {PANEL}")


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("tasks", help="names of tasks, groups or tags of the harness, with commas between them")
    top.add_argument("--limit", type=int, help="so many questions of each task, the first [all]")
    top.add_argument("--shots", type=int, help="solved examples before each question [as each task has it]")
    top.add_argument("--batch-size", type=int, default=8, help="questions at a time [8]")
    top.add_argument("--include-path", type=Path, help="a folder with tasks of your own")
    arguments = top.parse_args()
    arguments.tasks = [name for name in arguments.tasks.split(",") if name]
    if not arguments.tasks:
        top.error("tasks: found none; name some, such as arc_easy,ifeval")
    for name in ("limit", "batch_size"):
        if (value := vars(arguments)[name]) is not None and value < 1:
            top.error(f"--{name.replace('_', '-')}: found {value}, expected 1 or more")
    if arguments.shots is not None and arguments.shots < 0:
        top.error(f"--shots: found {arguments.shots}, expected 0 or more")
    return arguments
