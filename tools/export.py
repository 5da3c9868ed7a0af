"""Hand the tuned model on: models/tuned with a card that says what it is and what was measured.

    python -m tools.export FOLDER             the adapter (or all weights, after full-parameter tuning) and its card
    python -m tools.export FOLDER --merged    a plain checkpoint: the adapter merged into the base model's own weights

An adapter is put on with `PeftModel.from_pretrained(base, FOLDER)`, a plain checkpoint loaded like any model. Refused
where the metrics are not this model's, and where what was written does not compute what was measured: both are asked a
few of the prepared prompts. Loads the model as it was measured; merging, also in float32: about 4 bytes a weight of
memory.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from stages.lib.base.card import ELSEWHERE, model_card
from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_json, write_sums, write_text
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import Params, load_params
from stages.lib.base.rows import Problem, Prompt, read_jsonl
from stages.lib.measure.written import read_detail
from stages.lib.prompts.chat import math_messages, render_prompt, safety_messages
from tools.drift import missing_files, stages_to_run

TUNED, METRICS = Path("models/tuned"), Path("metrics")
PROMPTS = 3  # of each kind, on which the export is compared with what was measured
SETS = ("train", "shots", "test", "hazards", "benign")
OWN = {True: "risks", False: "skills"}  # by whether the judge reads the answers


def main() -> None:
    arguments = parse_arguments()
    params, folder = load_params(), arguments.folder
    if folder.exists():
        raise BadInput(f"{folder}: there already; name a folder that is not, or delete it")
    if not any((TUNED / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise BadInput(f"{TUNED}: no tuned model there; run `dvc repro`")
    if stale := missing_files() + stages_to_run():
        raise BadInput(f"the metrics would not be this model's: {', '.join(stale)} must run again; run `dvc repro`")
    if gone := [str(path) for name in (*SETS, *OWN.values()) if not (path := PREPARED / f"{name}.jsonl").is_file()]:
        raise BadInput(f"{gone[0]}: no such file, and the card names its hash; run `dvc repro` or `dvc pull`")
    adapter = (TUNED / "adapter_config.json").is_file()
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    kind = "adapter" if adapter and not arguments.merged else "merged" if adapter else "whole"
    try:
        compared = merge(params, part) if kind == "merged" else copy(params, part)
        write_text(part / "README.md", card(params, kind, compared))
        write_sums(part)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"export: {kind} model in {folder}, card in {folder / 'README.md'}. {compared}")


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("folder", type=Path)
    top.add_argument("--merged", action="store_true", help="a plain checkpoint instead of an adapter")
    return top.parse_args()


def copy(params: Params, folder: Path) -> str:
    """Copy what finetune wrote; what it computes, loaded from there, in words. BadInput if that is another model."""
    from stages.lib.generate.engine import end_tokens
    from stages.lib.model import merging, models

    shutil.copytree(TUNED, folder)
    if (folder / "adapter_config.json").is_file():
        weaken(folder, params.lora.strength)
    measured, tokenizer = models.load_subject(params.model, TUNED, True, params.lora.strength)
    prompts = asked(tokenizer)
    before = merging.logits(measured, prompts)
    del measured
    copied, _ = models.load_subject(params.model, folder, tuned=True)
    off = merging.apart(before, merging.logits(copied, prompts))
    if off > (0 if copied.device.type == "cpu" else merging.NOISE):
        raise BadInput(f"{folder}: loaded from there, logits are {off:.1e} of their spread from the measured model's")
    if (folder / "generation_config.json").is_file():
        merging.end_turns(copied, end_tokens(copied, tokenizer))
        copied.generation_config.save_pretrained(folder)
    if (folder / "config.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        tokenizer.save_pretrained(folder)  # whole weights, tuned elsewhere, with none of their own
    return f"On {len(prompts)} prompts its logits are those of the measured model."


def merge(params: Params, folder: Path) -> str:
    """Write the base model with the adapter merged in; how far it is from the measured model, in words.

    Three steps, each held to what it may change. From the measured model to the adapter on float32 weights only the
    format of numbers changes: logits may move by twice what that does to the untuned model, on the same prompts.
    Merging may change the order of sums; what is then rounded to model.dtype is what the files hold, to the bit.
    """
    import torch

    from stages.lib.generate.engine import end_tokens
    from stages.lib.model import merging, models, sources

    source = sources.find(params.model.name, params.model.revision)
    merging.check_mergeable(Path(source.path), TUNED)
    measured, tokenizer = models.load_subject(params.model, TUNED, True, params.lora.strength)
    prompts = asked(tokenizer)
    before = merging.logits(measured, prompts)
    with measured.disable_adapter():
        untuned = merging.logits(measured, prompts)
    del measured

    base = models.load_base(source, "none", "float32")
    merging.end_turns(base, end_tokens(base, tokenizer))
    written = merging.merge(base, TUNED, folder, getattr(torch, params.model.dtype), prompts, params.lora.strength)
    tokenizer.save_pretrained(folder)
    form, off = merging.apart(untuned, written.base), merging.apart(before, written.tuned)
    if off > 2 * form + merging.NOISE:
        raise BadInput(
            f"{TUNED}: on the base model's own weights the adapter computes something else than was measured: logits "
            f"are {off:.1%} of their spread apart, where the format of numbers accounts for {form:.1%}"
        )
    far, moved = merging.apart(before, written.written), merging.apart(before, untuned)
    return (
        f"On {len(prompts)} prompts its logits are {far:.2%} of their spread from the measured model's. The tuning "
        f"moved them by {moved:.2%}; its own weights in float32 move those of the untuned model by {form:.2%}."
    )


def weaken(folder: Path, strength: float) -> None:
    """Have an adapter's own settings say at which strength it was measured: whoever loads it gets that."""
    if strength == 1:
        return
    settings = json.loads(read_text(folder / "adapter_config.json"))
    settings["lora_alpha"] *= strength
    settings["alpha_pattern"] = {name: alpha * strength for name, alpha in settings["alpha_pattern"].items()}
    write_json(folder / "adapter_config.json", settings)
    write_sums(folder)


def asked(tokenizer: Any) -> list[list[int]]:
    """A few of the prompts that were measured, as ids."""
    problems = read_jsonl(PREPARED / "test.jsonl", Problem)[:PROMPTS]
    hazards = read_jsonl(PREPARED / "hazards.jsonl", Prompt)[:PROMPTS]
    turns = [math_messages(row.question, []) for row in problems] + [safety_messages(row.text) for row in hazards]
    return tokenizer([render_prompt(tokenizer, each) for each in turns], add_special_tokens=False)["input_ids"]


def card(params: Params, kind: str, compared: str = "") -> str:
    """The model card with what was measured; `kind`: adapter, merged or whole; `compared`: how far it is from that."""
    from stages.lib.report.tables import headline_table, retained
    from stages.lib.report.wording import markdown_table

    found = json.loads(read_text(METRICS / "detail.json"))
    measures, kept = read_detail(found)
    measured = {
        "sentence": found["sentence"],
        "compared": compared,
        "table": markdown_table(headline_table(params, measures)),
        "kept": retained(kept),
        "judge": params.judge,
        "base": params.base,
        "source": params.data.source,
    }
    values = params.model_dump(exclude={"review", "machine"})
    sets = [*SETS, *sorted({OWN[judged] for judged in params.own.values()})]
    if params.tuned.model:  # not from these training rows
        found = json.loads(read_text(TUNED / ELSEWHERE))
        return model_card(kind, params.model, sets[2:], values, measured, elsewhere=found)
    replayed = ("replay",) if params.finetune.replay else ()
    return model_card(kind, params.model, (*sets, *replayed), values, measured)


if __name__ == "__main__":
    run(main)
