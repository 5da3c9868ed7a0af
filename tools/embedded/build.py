"""Build the guard adapter in this folder from data/embedded/: a verdict on a prompt and a response.

    python -m tools.embedded.build

`make embedded` does it, in most of an hour, on one core, so that the same bytes come out each time, however many cores
a CPU has. Nothing here reads a test prompt. README.md has what was measured.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.files import write_sums
from stages.lib.base.model_files import SMALLEST
from stages.lib.base.rows import NonEmpty, Row, read_jsonl
from stages.lib.base.sections import Finetune, Lora
from stages.lib.judge.guards import LLAMA_GUARD_CATEGORY, llama_guard_prompt
from stages.lib.model.embedded import SETTINGS, WEIGHTS
from tools.embedded import DATA

HERE = Path(__file__).parents[2] / "models" / "embedded"
HAZARDS, ORDINARY = DATA / "guard_hazards.jsonl", DATA / "guard_ordinary.jsonl"
RESPONSES = DATA / "guard_responses.jsonl"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEED = 1126

Split = Literal["train", "validation"]


class Hazard(Row):
    """A hazard prompt with a refusal, a response that complies in tone, and a safe one that refuses nothing."""

    id: NonEmpty
    hazard: NonEmpty
    split: Split
    topic: NonEmpty
    prompt: NonEmpty
    refusal: NonEmpty
    unsafe: NonEmpty
    soft: NonEmpty


class Ordinary(Row):
    """A prompt to help with, and the base model's own answer; `cut` says that it went on beyond its 64 tokens."""

    id: NonEmpty
    hazard: NonEmpty
    split: Split
    topic: NonEmpty
    prompt: NonEmpty
    answer: str
    cut: bool


class Judged(Row):
    """A model's response to a hazard prompt, labelled by reading it."""

    id: NonEmpty
    prompt_id: NonEmpty
    model: NonEmpty
    response: NonEmpty
    label: Literal["safe", "unsafe"]
    reason: NonEmpty


GUARD = Finetune(
    epochs=2,
    learning_rate=5e-4,
    warmup_ratio=0.05,
    weight_decay=0.0,
    schedule="cosine",
    batch_size=8,
    accumulation=1,
    optimizer="adamw_torch",
    loss="answer",
    seed=SEED,
)
LORA = Lora(enabled=True, r=8, alpha=16, dropout=0.0, target_modules=PROJECTIONS)


def main() -> None:
    no_arguments(__doc__)
    build_on_one_core(SEED, HERE / "guard")


def hazards(split: Split) -> list[Hazard]:
    return [row for row in read_jsonl(HAZARDS, Hazard) if row.split == split]


def ordinary(split: Split) -> list[Ordinary]:
    return [row for row in read_jsonl(ORDINARY, Ordinary) if row.split == split]


def begin(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """A training row cut after the first token of its completion."""
    from stages.lib.train.packing import IGNORED

    start = next(n for n, label in enumerate(row["labels"]) if label != IGNORED)
    return {name: values[: start + 1] for name, values in row.items()}


def guard_rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Verdicts on authored responses, on labelled responses of models and on the base model's ordinary answers.

    The loss counts a verdict's first token, and its categories in every other unsafe row only: with all of them, the
    categories drowned the verdict and the guard called everything safe.
    """
    from stages.lib.train.encoding import row

    pairs: list[tuple[str, str, str | None]] = []
    prompts = {each.id: each for each in hazards("train")}
    for number, each in enumerate(prompts.values()):
        pairs += [(each.prompt, each.soft, None), (each.prompt, each.unsafe, LLAMA_GUARD_CATEGORY[each.hazard])]
        if number % 2:  # models' refusals are many below; of all rows a third should be unsafe
            pairs.append((each.prompt, each.refusal, None))
    for judged in read_jsonl(RESPONSES, Judged):
        if judged.prompt_id not in prompts:  # the validation split's
            continue
        of = prompts[judged.prompt_id]
        category = LLAMA_GUARD_CATEGORY[of.hazard] if judged.label == "unsafe" else None
        pairs.append((of.prompt, judged.response, category))
    pairs += [(each.prompt, each.answer, None) for each in ordinary("train")]

    rows, unsafe = [], 0
    for prompt, response, category in pairs:
        verdict = "safe" if category is None else f"unsafe\n{category}"
        whole = row(tokenizer, llama_guard_prompt(tokenizer, prompt, response), verdict + tokenizer.eos_token, "answer")
        unsafe += category is not None
        if category is None or unsafe % 2:
            whole = begin(whole)
        rows.append(whole)
    return rows


def build_on_one_core(seed: int, folder: Path) -> None:
    """`build` in a process that does nothing else: the sums in 16 bits depend on how many threads share them."""
    import torch

    torch.set_num_threads(1)
    build(seed, folder)


def build(seed: int, folder: Path) -> None:
    """Train the guard adapter with a seed and write it to a folder, in bf16, as safetensors."""
    from stages.lib.model import device, models, sources
    from stages.lib.train import training

    device.quiet()
    source = sources.find(SMALLEST, None)
    tokenizer = sources.load_tokenizer(source)
    tokenizer.chat_template = (HERE / "guard" / "chat_template.jinja").read_text(encoding="utf-8")
    rows = guard_rows(tokenizer)
    model = training.add_lora(models.load_base(source, "none", "bfloat16"), LORA, seed, SMALLEST, None)
    steps = training.train(model, rows, GUARD.model_copy(update={"seed": seed}), bf16=True)
    print(f"guard: {len(rows)} rows, {len(steps)} updates, loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}")
    # half the bytes in git
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    with TemporaryDirectory() as scratch:
        training.save(model, tokenizer, Path(scratch), "bfloat16")
        folder.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, SETTINGS):  # not peft's empty card
            part = shutil.copy(Path(scratch) / name, folder / f".{name}.part")
            Path(part).replace(folder / name)
        write_sums(folder)


if __name__ == "__main__":
    run(main)
