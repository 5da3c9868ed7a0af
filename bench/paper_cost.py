"""What the ten runs cost at paper scale, from the rates that the benchmark measured: the table in docs/RUNNING.md.

    python -m bench.paper_cost

Work is counted in floating-point operations (bench/work.py) at Qwen2.5's shapes, and taken at the rate this project
reached with its embedded model in bench/results.json (`make bench`), for generation, judging and training apart. Larger
matrices run nearer to a machine's full rate, so the hours are rather too high. Not counted: loading, and what a guard
writes after `unsafe`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pandas

from stages.lib.base.cli import run
from stages.lib.base.yaml_files import read_yaml
from stages.lib.report.published import load_study, resolve

FOLDER = Path(__file__).parent

# Assumptions, beside the rates
QUESTIONS, HAZARDS, ROWS = 1319, 1200, 2491  # GSM8K test, AILuminate demo, the shortest third of GSM8K train
SHOT, QUESTION, SOLVED = 120, 90, 150  # tokens of an example, of a question's turn, of a training row without examples
ANSWER, RESPONSE, PROMPT = 150, 300, 50  # new tokens of an answer and of a response, tokens of a hazard prompt
POLICY = 200  # tokens of a guard's policy


@dataclass(frozen=True)
class Shape:
    """Weights of the linear layers, of the output layer, and operations of attention per token and key."""

    linear: float
    output: float
    attention: float


SHAPES = {
    "embedded": Shape(0.106e9, 0.028e9, 4 * 30 * 576),
    "1.5B": Shape(1.31e9, 0.233e9, 4 * 28 * 1536),
    "7B": Shape(6.53e9, 0.545e9, 4 * 28 * 3584),
    "guard": Shape(6.98e9, 0.525e9, 4 * 32 * 4096),  # Llama Guard 3 8B
}


def main() -> None:
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    print(table(results))


def table(results: dict) -> str:
    """A row for each run: hours of training, of both models' answers and responses, of judging them, and of all."""
    study, values = load_study(), read_yaml(Path("params.yaml"))
    math, safety, judging, training = rates(results)
    rows = []
    for each in study.runs:
        params = resolve(values, study.overrides(each, "paper"), each.name)
        shape, prefix = SHAPES[each.size], SHOT * params.fewshot.shots
        hours = {
            "training": trained(shape, prefix, SOLVED, params.finetune.epochs * ROWS, params.finetune.loss == "text")
            / training,
            "math": 2 * written(shape, prefix, QUESTION, ANSWER, QUESTIONS) / math,
            "safety": 2 * written(shape, 0, PROMPT, RESPONSE, HAZARDS) / safety,
            "judging": 2 * written(SHAPES["guard"], POLICY, PROMPT + RESPONSE, 1, HAZARDS) / judging,
        }
        rows.append({"run": each.name, "model": each.size, **{name: value / 3600 for name, value in hours.items()}})
    frame = pandas.DataFrame(rows)
    frame["all"] = frame[["training", "math", "safety", "judging"]].sum(axis=1)
    return frame.to_markdown(index=False, floatfmt=".1f")


def rates(results: dict[str, Any]) -> tuple[float, float, float, float]:
    """Operations per second of this project's math, safety, judging and training in the benchmark."""
    found = []
    for job in results["work"].values():
        found.append(job["floor"]["gflop_per_prompt"] * 1e9 / mean(job["seconds_per_prompt"]["aftertune"]))
    packed = results["training"]["5 shots"]["packed"]
    tokens, rows = packed[0]["tokens"], results["training"]["5 shots"]["rows"]
    work = trained(SHAPES["embedded"], tokens["shared"], tokens["then"], rows, whole_text=False)
    return (*found, work / rows / mean(row["seconds_per_row"] for row in packed))


def written(shape: Shape, prefix: int, then: int, new: int, prompts: int) -> float:
    """Operations of generating: the prefix once, then each prompt's own tokens and `new` ones."""
    tokens = prefix + prompts * (then + new - 1)
    keys = prefix + (then + new) / 2
    return (
        2 * shape.linear * tokens + 2 * shape.output * prompts * new + shape.attention * keys * prompts * (then + new)
    )


def trained(shape: Shape, prefix: int, own: float, rows: float, whole_text: bool, packed: int = 4) -> float:
    """Operations of LoRA training, so many rows to a pack: forward, and backward to the inputs of frozen weights."""
    packs = rows / packed
    tokens = packs * (prefix + packed * own)
    with_loss = tokens if whole_text else rows * own / 2
    keys = packs * (prefix**2 / 2 + packed * own * (prefix + own / 2))
    return 4 * (shape.linear * tokens + shape.output * with_loss) + 3 * shape.attention * keys


if __name__ == "__main__":
    run(main)
