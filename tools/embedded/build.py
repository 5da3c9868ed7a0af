"""Build the guard adapter in this folder from data/embedded/: a verdict on a prompt and a response.

    python -m tools.embedded.build

`make embedded` does it, with two threads, so that the same bytes come out each time, however many cores a CPU has. Only
the upper layers are trained (upper.py). Nothing here reads a test prompt. README.md has what was measured.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.files import write_json, write_sums
from stages.lib.base.rows import NonEmpty, Row, read_jsonl
from stages.lib.base.sections import Finetune, Lora
from stages.lib.judge.guards import LLAMA_GUARD_CATEGORY, llama_guard_prompt
from stages.lib.model.embedded import SETTINGS, WEIGHTS
from tools.embedded import DATA

HERE = Path(__file__).parents[2] / "models" / "embedded"

HAZARDS, PROMPTS = DATA / "guard_hazards.jsonl", DATA / "guard_prompts.jsonl"
RESPONSES = DATA / "guard_responses.jsonl"
BASE = "embedded/qwen2.5-coder-0.5b-instruct"
LOWER = 8  # layers of 24 that stay as they are
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEED = 1126
THREADS = 2  # the sums in 16 bits depend on how many share them

Split = Literal["train", "validation"]


class Asked(Row):
    """A hazard prompt."""

    hazard: NonEmpty
    topic: NonEmpty
    prompt: NonEmpty


class Hazard(Asked):
    """A hazard prompt with a refusal, a response that complies in tone, and a safe one that refuses nothing."""

    split: Split
    refusal: NonEmpty
    unsafe: NonEmpty
    soft: NonEmpty


class Judged(Row):
    """A model's response to a hazard prompt, labelled by reading it."""

    prompt_id: NonEmpty
    model: Literal["base", "words", "gsm8k"]
    response: NonEmpty
    finish: Literal["stop", "length", "repetition"]
    label: Literal["safe", "unsafe"]
    refused: bool
    reason: NonEmpty


GUARD = Finetune(
    epochs=2,
    learning_rate=3e-4,
    warmup_ratio=0.05,
    weight_decay=0.0,
    schedule="cosine",
    batch_size=8,
    accumulation=1,
    optimizer="adamw_torch",
    loss="answer",
    seed=SEED,
)
LORA = Lora(enabled=True, r=16, alpha=32, dropout=0.0, target_modules=PROJECTIONS)


def main() -> None:
    no_arguments(__doc__)
    build(SEED, HERE / "guard")


def hazards(split: Split) -> list[Hazard]:
    return [row for row in read_jsonl(HAZARDS, Hazard) if row.split == split]


def judged(split: Split) -> list[tuple[Asked, Judged]]:
    """The labelled responses to a split's prompts, each with its prompt."""
    asked: list[Asked] = [*hazards(split), *(read_jsonl(PROMPTS, Asked) if split == "train" else [])]
    prompts = {each.id: each for each in asked}
    return [(prompts[row.prompt_id], row) for row in read_jsonl(RESPONSES, Judged) if row.prompt_id in prompts]


def begin(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """A training row cut after the first token of its completion."""
    from stages.lib.train.packing import IGNORED

    start = next(n for n, label in enumerate(row["labels"]) if label != IGNORED)
    return {name: values[: start + 1] for name, values in row.items()}


def guard_rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Verdicts on authored responses and on labelled responses of models, untuned and tuned.

    The loss counts a verdict's first token, and its categories in every other unsafe row only: with all of them, the
    categories drowned the verdict and the guard called everything safe.
    """
    from stages.lib.train.encoding import row

    pairs: list[tuple[str, str, str | None]] = []
    for number, each in enumerate(hazards("train")):
        pairs += [(each.prompt, each.soft, None), (each.prompt, each.unsafe, LLAMA_GUARD_CATEGORY[each.hazard])]
        if number % 4 == 0:  # models' refusals are many below
            pairs.append((each.prompt, each.refusal, None))
    for of, response in judged("train"):
        category = LLAMA_GUARD_CATEGORY[of.hazard] if response.label == "unsafe" else None
        pairs.append((of.prompt, response.response, category))

    rows, unsafe = [], 0
    for prompt, response, category in pairs:
        verdict = "safe" if category is None else f"unsafe\n{category}"
        whole = row(tokenizer, llama_guard_prompt(tokenizer, prompt, response), verdict + tokenizer.eos_token, "answer")
        unsafe += category is not None
        if category is None or unsafe % 2:
            whole = begin(whole)
        rows.append(whole)
    return rows


def build(seed: int, folder: Path) -> None:
    """Train the guard adapter with a seed and write it to a folder, in bf16, as safetensors."""
    import torch

    from stages.lib.model import device, models, sources
    from stages.lib.train import training
    from tools.embedded.upper import computed_once

    torch.set_num_threads(THREADS)
    device.quiet()
    source = sources.find(BASE, None)
    tokenizer = sources.load_tokenizer(source)
    tokenizer.chat_template = (HERE / "guard" / "chat_template.jinja").read_text(encoding="utf-8")
    base = models.load_base(source, "none", "bfloat16")
    layers = len(base.model.layers)
    rows = computed_once(base, guard_rows(tokenizer), LOWER)
    model = training.add_lora(base, LORA, seed, BASE, None)
    steps = training.train(model, rows, GUARD.model_copy(update={"seed": seed}), bf16=True)
    print(f"guard: {len(rows)} rows, {len(steps)} updates, loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}")
    # half the bytes in git
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    with TemporaryDirectory() as scratch:
        training.save(model, tokenizer, Path(scratch), "bfloat16")
        settings = json.loads((Path(scratch) / SETTINGS).read_text(encoding="utf-8"))
        write_json(Path(scratch) / SETTINGS, {**settings, "layers_to_transform": list(range(LOWER, layers))})
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, SETTINGS):  # not peft's empty card
            part = shutil.copy(Path(scratch) / name, folder / f".{name}.part")
            Path(part).replace(folder / name)
        write_sums(folder)


if __name__ == "__main__":
    run(main)
