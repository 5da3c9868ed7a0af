"""Hand the tuned model on: models/tuned with a card that says what it is and what was measured.

    python -m tools.export FOLDER             the adapter (or all weights, after full-parameter tuning) and its card
    python -m tools.export FOLDER --merged    a plain checkpoint: the adapter merged into the base model's own weights

An adapter is put on with `PeftModel.from_pretrained(base, FOLDER)`, a plain checkpoint loaded like any model. Refused
where the metrics are not this model's. Merging loads the base model in float32: about 4 bytes a weight of memory.
"""

import argparse
import json
import shutil
from pathlib import Path

from stages.lib.base.card import model_card
from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text, write_json, write_sums, write_text
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import Params, load_params
from stages.lib.measure.written import read_detail
from tools.drift import missing_files, stages_to_run

TUNED, METRICS = Path("models/tuned"), Path("metrics")
SETS = ("train", "shots", "test", "hazards", "benign")


def main() -> None:
    arguments = parse_arguments()
    params, folder = load_params(), arguments.folder
    if folder.exists():
        raise BadInput(f"{folder}: there already; name a folder that is not, or delete it")
    if not any((TUNED / name).is_file() for name in ("adapter_config.json", "config.json")):
        raise BadInput(f"{TUNED}: no tuned model there; run `dvc repro`")
    if stale := missing_files() + stages_to_run():
        raise BadInput(f"the metrics would not be this model's: {', '.join(stale)} must run again; run `dvc repro`")
    if gone := [str(path) for name in SETS if not (path := PREPARED / f"{name}.jsonl").is_file()]:
        raise BadInput(f"{gone[0]}: no such file, and the card names its hash; run `dvc repro` or `dvc pull`")
    adapter = (TUNED / "adapter_config.json").is_file()
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if arguments.merged and adapter:
        merge(params, part)
    else:
        shutil.copytree(TUNED, part)
        if adapter:
            weaken(part, params.lora.strength)
    kind = "adapter" if adapter and not arguments.merged else "merged" if adapter else "whole"
    write_text(part / "README.md", card(params, kind))
    part.replace(folder)
    print(f"export: {kind} model in {folder}, card in {folder / 'README.md'}")


def parse_arguments() -> argparse.Namespace:
    top = parser(__doc__)
    top.add_argument("folder", type=Path)
    top.add_argument("--merged", action="store_true", help="a plain checkpoint instead of an adapter")
    return top.parse_args()


def merge(params: Params, folder: Path) -> None:
    """Write the base model with the adapter merged in. In float32, so that small changes are not rounded twice."""
    import torch
    from peft import PeftModel

    from stages.lib.model import models

    source = models.find(params.model.name, params.model.revision)
    base = models.load_base(source, "none", "float32")
    tuned = models.set_strength(PeftModel.from_pretrained(base, str(TUNED)), params.lora.strength)
    merged = tuned.merge_and_unload()
    merged.to(getattr(torch, params.model.dtype)).save_pretrained(folder)
    models.load_tokenizer(source).save_pretrained(folder)


def weaken(folder: Path, strength: float) -> None:
    """Have an adapter's own settings say at which strength it was measured: whoever loads it gets that."""
    if strength == 1:
        return
    settings = json.loads(read_text(folder / "adapter_config.json"))
    settings["lora_alpha"] *= strength
    write_json(folder / "adapter_config.json", settings)
    write_sums(folder)


def card(params: Params, kind: str) -> str:
    """The model card with what was measured; `kind`: adapter, merged or whole."""
    from stages.lib.report.tables import headline_table, retained
    from stages.lib.report.wording import markdown_table

    found = json.loads(read_text(METRICS / "detail.json"))
    measures, kept = read_detail(found)
    measured = {
        "sentence": found["sentence"],
        "table": markdown_table(headline_table(params, measures)),
        "kept": retained(kept),
        "judge": params.judge,
        "source": params.data.source,
    }
    return model_card(kind, params.model, SETS, params.model_dump(exclude={"review", "machine"}), measured)


if __name__ == "__main__":
    run(main)
