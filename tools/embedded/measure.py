"""Measure the guard adapter, over SEEDS: how far can it be believed.

    AFTERTUNE_DATA=<folder with ailuminate/> python -m tools.embedded.measure

Builds the adapter anew for every seed but the committed one, keeps those in the cache folder (an
interrupted measurement goes on where it was), and writes measurements.json, verdicts.jsonl and the tables in README.md
here. The guard is measured on authored responses to test prompts, and on labels.jsonl: responses to AILuminate prompts,
labelled by reading them. Minutes on two CPU cores for the committed seed, most of an hour for each other.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from tabulate import tabulate

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import cache_folder, read_text, rounded, sha256_file, sha256_text, write_json, write_text
from stages.lib.base.params import Params, load_params
from stages.lib.base.rows import NonEmpty, Prompt, Row, read_jsonl, write_jsonl
from stages.lib.data.sources import AILUMINATE_FILE, load_hazards
from stages.lib.generate.engine import Engine
from stages.lib.judge.guards import Reading, is_refusal
from stages.lib.judge.safeguard import ask_llama_guard
from stages.lib.model import device, models, sources
from stages.lib.model.embedded import SETTINGS, TEMPLATE, base_name, embedded_folder
from tools.embedded import DATA, build, labels
from tools.embedded.build import HAZARDS, HERE, PROMPTS, RESPONSES, SEED
from tools.embedded.labels import Judgement, Label, agreement

SEEDS = (SEED, 1127, 1128)
BUILT_FROM = (Path(build.__file__), HERE / "guard" / TEMPLATE, HAZARDS, PROMPTS, RESPONSES)
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Pairs = Sequence[tuple[str, str]]


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
    rows = []
    for seed in SEEDS:
        row, judgements = measure_guard(guard_of(adapter(seed)), params)
        row = {"seed": seed, **row}
        if seed == SEED:
            write_jsonl(labels.VERDICTS, judgements)
        print(json.dumps(rounded(row)), flush=True)
        rows.append(row)
    write_json(HERE / "measurements.json", rounded({"seeds": rows, "refusal_rule": measure_rule(params)}))
    readme = read_text(HERE / "README.md")
    write_text(HERE / "README.md", re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{tables()}\n{END}", readme, flags=re.DOTALL))


def adapter(seed: int) -> Path:
    """The folder of this seed's adapter: the committed one, one kept from before, or built now."""
    if seed == SEED:
        return HERE / "guard"
    recipe = sha256_text("".join(map(sha256_file, BUILT_FROM)))
    folder = cache_folder() / f"guard-{seed}-{recipe[:8]}"
    if not (folder / SETTINGS).is_file():  # written last
        build.build(seed, folder)
    shutil.copy(HERE / "guard" / TEMPLATE, folder)
    return folder


def guard_of(folder: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of the guard with this adapter."""
    source = sources.Source(str(embedded_folder(base_name(folder))), None, folder)
    return models.load_for_generation(source, "none", "bfloat16"), sources.load_tokenizer(source)


def real_prompts(params: Params) -> list[Prompt]:
    """AILuminate's demo prompts. Raises BadInput if they are not at hand."""
    path = Path(os.environ.get("AFTERTUNE_DATA", ".")) / "ailuminate" / AILUMINATE_FILE
    if not path.is_file():
        raise BadInput(f"{path}: no such file; set AFTERTUNE_DATA to a folder that holds ailuminate/{AILUMINATE_FILE}")
    files = params.data.files.model_copy(update={"hazards": str(path)})
    return load_hazards(params.data.model_copy(update={"source": "file", "files": files}))


def judged(judge: tuple[Any, Any], pairs: Pairs, name: str) -> list[tuple[Reading, float | None]]:
    """The guard's reading of each pair and its probability of unsafe."""
    return ask_llama_guard(Engine(*judge, 64), pairs, name)


def authored(params: Params) -> tuple[list[tuple[str, str]], list[bool]]:
    """(prompt, response) pairs that were written for the test prompts, and which of them are safe."""
    prompts = {row.id: row.text for row in load_hazards(params.data)}
    rows = read_jsonl(DATA / "guard_test.jsonl", Authored)
    pairs = [(prompts[row.id], text) for row in rows for text in (row.refusal, row.unsafe, row.soft)]
    return pairs, [safe for _ in rows for safe in (True, False, True)]


def labelled(params: Params) -> tuple[list[tuple[str, str]], list[Label]]:
    """(prompt, response) pairs of labels.jsonl, and their labels."""
    prompts = {row.id: row.text for row in real_prompts(params)}
    rows = read_jsonl(labels.LABELS, Label)
    return [(prompts[row.prompt_id], row.response) for row in rows], rows


def measure_guard(judge: tuple[Any, Any], params: Params) -> tuple[dict[str, Any], list[Judgement]]:
    """The guard against the authored responses and against the labels; and its verdicts on the labelled ones."""
    pairs, safe = authored(params)
    found = {"authored": agreement(safe, [reading.label == "safe" for reading, _ in judged(judge, pairs, "authored")])}
    pairs, rows = labelled(params)
    readings = judged(judge, pairs, "labelled")
    verdicts = [reading.label == "safe" for reading, _ in readings]
    found["labelled"] = agreement([row.label == "safe" for row in rows], verdicts)
    said = [
        Judgement(id=row.id, label=reading.label, p_unsafe=None if score is None else round(score, 6))
        for row, (reading, score) in zip(rows, readings, strict=True)
    ]
    return found, said


def measure_rule(params: Params) -> dict[str, Any]:
    """The refusal rule, that calls a response safe if it refuses, against the same; and what it takes for a refusal."""
    pairs, safe = authored(params)
    rows = read_jsonl(labels.LABELS, Label)
    refuses = [is_refusal(row.response) for row in rows]
    return {
        "authored": agreement(safe, [is_refusal(response) for _, response in pairs]),
        "labelled": agreement([row.label == "safe" for row in rows], refuses),
        "refusals": {
            "labelled": sum(row.refused for row in rows),
            "missed": sum(row.refused and not found for row, found in zip(rows, refuses, strict=True)),
            "mistaken": sum(found and not row.refused for row, found in zip(rows, refuses, strict=True)),
        },
    }


def tables() -> str:
    """The measurements as Markdown: over the seeds, in parts of the labels, and what the errors do to a change."""
    return f"{table()}\n\n{labels.report()}"


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
        value = values[path[0]][path[1]]
        return value[0] if isinstance(value, list) else value  # a share with its interval

    rows = []
    for title, path in lines:
        values = [at(seed, path) for seed in seeds]
        by_rule = f"{at(rule, path):.3f}"
        rows.append([title, *(f"{value:.3f}" for value in values), f"{mean(values):.3f}", by_rule])
    headers = ["", *(f"seed {seed['seed']}" for seed in seeds), "mean", "refusal rule"]
    said = "The refusal rule missed {missed} of the {labelled} refusals among the labels; {mistaken} it found is none."
    return f"{tabulate(rows, headers, tablefmt='github', disable_numparse=True)}\n\n{said.format(**rule['refusals'])}"


if __name__ == "__main__":
    run(main)
