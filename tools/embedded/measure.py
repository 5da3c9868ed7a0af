"""Measure the guard adapter, over SEEDS: how far can it be believed.

    AFTERTUNE_DATA=<folder with ailuminate/> python -m tools.embedded.measure

Builds the adapter anew for every seed but the committed one, two side by side, keeps those in the cache folder (an
interrupted measurement goes on where it was), and writes measurements.json and the table in README.md here. The guard
is measured on authored responses to test prompts, and on labels.jsonl: responses to AILuminate prompts, labelled by
reading them. A minute on two CPU cores for the committed seed, most of an hour for each other.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from statsmodels.stats.inter_rater import cohens_kappa
from tabulate import tabulate

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import cache_folder, read_text, rounded, sha256_file, sha256_text, write_json, write_text
from stages.lib.base.params import Params, load_params
from stages.lib.base.rows import NonEmpty, Prompt, Row, read_jsonl
from stages.lib.data.sources import AILUMINATE_FILE, load_hazards
from stages.lib.generate.engine import Engine
from stages.lib.judge.guards import is_refusal
from stages.lib.judge.safeguard import ask_llama_guard
from stages.lib.model import device, models, sources
from stages.lib.model.embedded import SETTINGS, TEMPLATE, merged_folder
from tools.embedded import DATA
from tools.embedded.build import HAZARDS, HERE, ORDINARY, RESPONSES, SEED, build_on_one_core

SEEDS = (SEED, 1127, 1128)
BUILT_FROM = (Path(__file__).with_name("build.py"), HERE / "guard" / TEMPLATE, HAZARDS, ORDINARY, RESPONSES)
# (label, verdict): safe and safe, safe and unsafe; unsafe and safe, unsafe and unsafe
CELLS = (((True, True), (True, False)), ((False, True), (False, False)))
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Label(Row):
    """A model's response to an AILuminate prompt, `id`, labelled by reading it (RUBRIC in README.md)."""

    model: Literal["base", "chat", "tuned"]
    response: NonEmpty
    label: Literal["safe", "unsafe"]
    refused: bool
    reason: NonEmpty


class Authored(Row):
    """Responses written for the test prompt `id`: only the second is unsafe."""

    refusal: NonEmpty
    unsafe: NonEmpty
    soft: NonEmpty


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    real_prompts(params)  # before an hour of building, rather than after it
    device.quiet()
    with ProcessPoolExecutor(2, get_context("spawn")) as builders:  # each keeps to one core
        folders = list(builders.map(adapter, SEEDS))
    rows = []
    for seed, folder in zip(SEEDS, folders, strict=True):
        row = {"seed": seed, **measure_guard(guard_of(folder), params)}
        print(json.dumps(rounded(row)), flush=True)
        rows.append(row)
    write_json(HERE / "measurements.json", rounded({"seeds": rows, "refusal_rule": measure_rule(params)}))
    readme = read_text(HERE / "README.md")
    write_text(HERE / "README.md", re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{table()}\n{END}", readme, flags=re.DOTALL))


def adapter(seed: int) -> Path:
    """The folder of this seed's adapter: the committed one, one kept from before, or built now."""
    if seed == SEED:
        return HERE / "guard"
    recipe = sha256_text("".join(map(sha256_file, BUILT_FROM)))
    folder = cache_folder() / f"guard-{seed}-{recipe[:8]}"
    if not (folder / SETTINGS).is_file():  # written last
        build_on_one_core(seed, folder)
    shutil.copy(HERE / "guard" / TEMPLATE, folder)
    return folder


def guard_of(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of the guard with this adapter."""
    source = sources.Source(str(merged_folder(folder)), None)
    return models.load_base(source, "none", "bfloat16"), sources.load_tokenizer(source)


def real_prompts(params: Params) -> list[Prompt]:
    """AILuminate's demo prompts. Raises BadInput if they are not at hand."""
    path = Path(os.environ.get("AFTERTUNE_DATA", ".")) / "ailuminate" / AILUMINATE_FILE
    if not path.is_file():
        raise BadInput(f"{path}: no such file; set AFTERTUNE_DATA to a folder that holds ailuminate/{AILUMINATE_FILE}")
    files = params.data.files.model_copy(update={"hazards": str(path)})
    return load_hazards(params.data.model_copy(update={"source": "file", "files": files}))


def judged(judge: tuple[Any, Any], pairs: Sequence[tuple[str, str]], name: str) -> list[bool]:
    """Whether the guard calls each pair's response safe."""
    return [reading.label == "safe" for reading, _ in ask_llama_guard(Engine(*judge, 64), pairs, name)]


def authored(params: Params) -> tuple[list[tuple[str, str]], list[bool]]:
    """(prompt, response) pairs that were written for the test prompts, and which of them are safe."""
    prompts = {row.id: row.text for row in load_hazards(params.data)}
    rows = read_jsonl(DATA / "guard_test.jsonl", Authored)
    pairs = [(prompts[row.id], text) for row in rows for text in (row.refusal, row.unsafe, row.soft)]
    return pairs, [safe for _ in rows for safe in (True, False, True)]


def labelled(params: Params) -> tuple[list[tuple[str, str]], list[bool]]:
    """(prompt, response) pairs of labels.jsonl, and which of them are safe."""
    prompts = {row.id: row.text for row in real_prompts(params)}
    rows = read_jsonl(HERE / "labels.jsonl", Label)
    return [(prompts[row.id], row.response) for row in rows], [row.label == "safe" for row in rows]


def measure_guard(judge: tuple[Any, Any], params: Params) -> dict[str, Any]:
    """The guard against the authored responses and against the labels."""
    found = {}
    for name, (pairs, safe) in (("authored", authored(params)), ("labelled", labelled(params))):
        found[name] = agreement(safe, judged(judge, pairs, name))
    return found


def measure_rule(params: Params) -> dict[str, Any]:
    """The refusal rule, that calls a response safe if it refuses, against the same; and what it takes for a refusal."""
    found: dict[str, Any] = {
        name: agreement(safe, [is_refusal(response) for _, response in pairs])
        for name, (pairs, safe) in (("authored", authored(params)), ("labelled", labelled(params)))
    }
    rows = read_jsonl(HERE / "labels.jsonl", Label)
    found["refusals"] = {
        "labelled": sum(row.refused for row in rows),
        "missed": sum(row.refused and not is_refusal(row.response) for row in rows),
        "mistaken": sum(is_refusal(row.response) and not row.refused for row in rows),
    }
    return found


def agreement(truth: Sequence[bool], verdicts: Sequence[bool]) -> dict[str, float]:
    """Accuracy, Cohen's kappa with its 95 % interval, unsafe called safe, safe called unsafe (shares of their own)."""
    counts = [[sum((t, v) == cell for t, v in zip(truth, verdicts, strict=True)) for cell in row] for row in CELLS]
    kappa = cohens_kappa(counts)
    return {
        "n": len(truth),
        "accuracy": mean(t == v for t, v in zip(truth, verdicts, strict=True)),
        "kappa": kappa.kappa,
        "kappa_low": kappa.kappa_low,
        "kappa_high": kappa.kappa_upp,
        "false_safe": counts[1][0] / sum(counts[1]),
        "false_unsafe": counts[0][1] / sum(counts[0]),
    }


def table() -> str:
    """The measurements as Markdown."""
    found = json.loads(read_text(HERE / "measurements.json"))
    seeds, rule = found["seeds"], found["refusal_rule"]
    lines: list[tuple[str, list[str]]] = []
    for name, title in (("authored", "authored responses, unseen"), ("labelled", "labelled responses, AILuminate")):
        of = f"guard: {title} (n {rule[name]['n']})"
        lines += [(f"{of}, accuracy", [name, "accuracy"]), ("... Cohen's kappa", [name, "kappa"])]
        lines += [("... unsafe called safe", [name, "false_safe"]), ("... safe called unsafe", [name, "false_unsafe"])]

    def at(values: Any, path: Sequence[str]) -> float:
        for part in path:
            values = values[part]
        return values

    rows = []
    for title, path in lines:
        values = [at(seed, path) for seed in seeds]
        by_rule = f"{at(rule, path):.3f}" if path[0] in rule else ""
        rows.append([title, *(f"{value:.3f}" for value in values), f"{mean(values):.3f}", by_rule])
    headers = ["", *(f"seed {seed['seed']}" for seed in seeds), "mean", "refusal rule"]
    said = "The refusal rule missed {missed} of the {labelled} refusals among the labels; {mistaken} it found is none."
    return f"{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n\n{said.format(**rule['refusals'])}"


if __name__ == "__main__":
    run(main)
