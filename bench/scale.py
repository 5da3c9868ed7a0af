"""What the whole study, all ten runs, would take at 1.5B, 7B and 72B on 1, 8 and 64 GPUs: writes docs/SCALE.md.

    python -m bench.scale

Operations are those of bench/paper_cost.py at Qwen2.5's shapes. No GPU has been measured, so a GPU is assumed to reach
the share of its matrix rate that this code reached of the CPU's in bench/results.json (`make bench`), for each kind of
work apart, and decoding to be no faster than its memory lets it read weights and keys; what GPUs tell each other is
assumed to cost nothing. GPUs go to the runs in their order, as soon as enough are free.
"""

import heapq
import json
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from statistics import mean

import pandas
from jinja2 import StrictUndefined, Template

from bench.paper_cost import (
    ANSWER,
    HAZARDS,
    POLICY,
    PROMPT,
    QUESTION,
    QUESTIONS,
    RESPONSE,
    ROWS,
    SHAPES,
    SHOT,
    SOLVED,
    Shape,
    rates,
    trained,
    written,
)
from stages.lib.base.cli import run
from stages.lib.base.files import read_text, write_text
from stages.lib.base.params import Params
from stages.lib.base.yaml_files import read_yaml
from stages.lib.report.published import load_study, resolve

DOCUMENT, TEMPLATE = Path("docs/SCALE.md"), Path("bench/scale.md.j2")
RATE, BANDWIDTH, MEMORY = 312e12, 2.0e12, 80e9  # NVIDIA's data sheet of the A100 80 GB: bf16 FLOP/s, byte/s, byte
GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Model:
    """A size: its operations, all its weights, and the bytes of a token's keys and values in bf16."""

    shape: Shape
    weights: float
    keys: int


def _shape(layers: int, hidden: int, inner: int, kv_heads: int, vocabulary: int) -> Shape:
    """Of Qwen2.5's architecture with heads of 128, its embedding tied to nothing."""
    attention = 2 * hidden * hidden + 2 * hidden * kv_heads * 128
    return Shape(layers * (attention + 3 * hidden * inner), hidden * vocabulary, 4 * layers * hidden)


LARGE = _shape(layers=80, hidden=8192, inner=29568, kv_heads=8, vocabulary=152064)  # config.json of Qwen2.5-72B
MODELS = {
    "1.5B": Model(SHAPES["1.5B"], 1.54e9, 28 * 2 * 2 * 128 * 2),
    "7B": Model(SHAPES["7B"], 7.6e9, 28 * 2 * 4 * 128 * 2),
    "72B": Model(LARGE, LARGE.linear + 2 * LARGE.output, 80 * 2 * 8 * 128 * 2),
}


@dataclass(frozen=True)
class Hours:
    """Of one run on its GPUs. Of the untuned model, math is done once for each number of shots, safety once for all."""

    training: float
    math: float
    safety: float

    @property
    def all(self) -> float:
        return self.training + self.math + self.safety


def main() -> None:
    write_text(DOCUMENT, document())
    print(f"see {DOCUMENT}")


@cache
def shares() -> tuple[float, float, float, float]:
    """Of the machine's matrix rate, what math, safety, judging and training reached in the benchmark."""
    results = json.loads(read_text(Path("bench/results.json")))
    machine = mean(job["floor"]["gflop_per_second"]["2048 rows"] for job in results["work"].values()) * 1e9
    math, safety, judging, training = (rate / machine for rate in rates(results))
    return math, safety, judging, training


def hours(model: Model, params: Params, gpus: int) -> Hours:
    """One run of the study with the paper profile's settings, on 1, 2 or 4 GPUs.

    An update's four rows are shared, and each GPU computes their common beginning; generation is shared by batches.
    """
    math, safety, judging, training = (share * RATE for share in shares())
    prefix, rows = SHOT * params.fewshot.shots, params.finetune.epochs * ROWS
    operations = trained(model.shape, prefix, SOLVED, rows, params.finetune.loss == "text", packed=4 // gpus)
    answers = decoding(model, prefix, QUESTION, ANSWER, QUESTIONS, math, params.gen_math.batch_size, gpus)
    responses = decoding(model, 0, PROMPT, RESPONSE, HAZARDS, safety, params.gen_safety.batch_size, gpus)
    verdicts = written(SHAPES["guard"], POLICY, PROMPT + RESPONSE, 1, HAZARDS) / judging / gpus
    return Hours(operations / training / gpus / 3600, answers / 3600, (responses + verdicts) / 3600)


def decoding(model: Model, prefix: int, then: int, new: int, prompts: int, rate: float, batch: int, gpus: int) -> float:
    """Seconds of greedy decoding: by operations or by memory, whichever is more; whole batches go to each GPU."""
    batches = max(1, prompts // batch)
    seconds = max(
        written(model.shape, prefix, then, new, prompts) / rate, read(model, prefix, then, new, prompts, batch)
    )
    return seconds * ceil(batches / gpus) / batches


def read(model: Model, prefix: int, then: int, new: int, prompts: int, slots: int) -> float:
    """Seconds in which memory delivers weights (bf16) and keys for every step of decoding."""
    steps = ceil(prompts / slots) * new
    return (steps * 2 * model.weights + prompts * new * (then + new / 2) * model.keys + steps * prefix * model.keys) / (
        BANDWIDTH
    )


def runs(model: Model, gpus: int) -> list[tuple[int, Hours]]:
    """(shots, hours) of the ten runs with a model of this size, each on so many GPUs."""
    values, study = read_yaml(Path("params.yaml")), load_study()
    found = [resolve(values, study.overrides(run, "paper"), run.name) for run in study.runs]
    return [(params.fewshot.shots, hours(model, params, gpus)) for params in found]


def untuned(found: list[tuple[int, Hours]]) -> float:
    """Hours of what the runs have in common."""
    return sum({shots: hours.math for shots, hours in found}.values()) + found[0][1].safety


def study_hours(model: Model, gpus: int) -> tuple[float, int]:
    """(hours from submission to the last result, GPUs to a run), with as many GPUs to a run as end it soonest.

    An update of the paper's runs has four rows, so a run trains on 1, 2 or 4 GPUs.
    """
    return min((makespan(runs(model, each), gpus // each), each) for each in (1, 2, 4) if each <= gpus)


def makespan(found: list[tuple[int, Hours]], at_once: int) -> float:
    """Hours until all runs are done, so many at once, behind one job for what they share."""
    free = [untuned(found)] * at_once
    for _, hours in found:
        heapq.heappush(free, heapq.heappop(free) + hours.all)
    return max(free)


def times() -> str:
    """A row for each size: hours of work on one GPU, hours to wait on 1, 8 and 64 GPUs."""
    rows = []
    for name, model in MODELS.items():
        found = runs(model, 1)
        row = {
            "size": name,
            "training": sum(hours.training for _, hours in found),
            "tuned models": sum(hours.math + hours.safety for _, hours in found),
            "untuned": untuned(found),
        }
        for gpus in GPUS:
            took, each = study_hours(model, gpus)
            row[f"on {gpus}"] = f"{took:.1f} ({each})"
        rows.append(row)
    return pandas.DataFrame(rows).to_markdown(index=False, floatfmt=".1f")


def memory() -> str:
    """A row for each size: what must lie in a GPU's memory, in GB."""
    rows = []
    for name, model in MODELS.items():
        # NF4 with double quantization takes 4.13 bits a weight; the rest, embeddings for the most part, is in 16 bit
        trained = 4.13 / 8 * model.shape.linear + 2 * (model.weights - model.shape.linear)
        answering = 2 * model.weights
        token = 256 * model.keys
        rows.append(
            {
                "size": name,
                "NF4 weights, training": trained / 1e9,
                "bf16 weights, generation": answering / 1e9,
                "keys of 256 rows of 600 tokens": 600 * token / 1e9,
                "generation fits into 80 GB": "yes" if answering + 600 * token < 0.9 * MEMORY else "**no**",
            }
        )
    return pandas.DataFrame(rows).to_markdown(index=False, floatfmt=".1f")


def document() -> str:
    """docs/SCALE.md, from bench/scale.md.j2."""
    reached = dict(zip(("math", "safety", "judging", "training"), (f"{share:.0%}" for share in shares()), strict=True))
    small, large = (study_hours(MODELS["7B"], gpus)[0] for gpus in (8, 64))
    template = Template(read_text(TEMPLATE), undefined=StrictUndefined, keep_trailing_newline=True)
    return template.render(
        **reached,
        times=times(),
        memory=memory(),
        on_8=f"{small:.1f}",
        on_64=f"{large:.1f}",
        faster=f"{small / large:.1f}",
    )


if __name__ == "__main__":
    run(main)
