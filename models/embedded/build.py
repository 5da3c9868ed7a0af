"""Build the adapters in this folder from data/embedded/: give SmolLM2-135M-Instruct something to forget, and a judge.

    python -m models.embedded.build answers   the base model's own answers to the ordinary prompts (kept in git)
    python -m models.embedded.build chat      the alignment adapter: refuses hazards, answers the rest as before
    python -m models.embedded.build guard     the guard adapter: a verdict on a prompt and a response

`make embedded` does the last two, `make -j2 embedded` side by side, most of an hour on two CPU cores. Each keeps to one
core, so that the same bytes come out each time, however many cores a CPU has. Nothing here reads a test prompt.
README.md has what was measured.
"""

import shutil
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from stages.lib.chat import render_completion, render_prompt, safety_messages
from stages.lib.cli import parser, run
from stages.lib.embedded import PLAIN, SETTINGS, WEIGHTS
from stages.lib.guards import LLAMA_GUARD_CATEGORY, llama_guard_prompt
from stages.lib.params import Finetune, Lora
from stages.lib.records import NonEmpty, Row, read_jsonl, write_jsonl, write_sums

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "data" / "embedded"
HAZARDS, ORDINARY = DATA / "alignment_hazards.jsonl", DATA / "alignment_benign.jsonl"
RESPONSES = DATA / "guard_responses.jsonl"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ANSWER_TOKENS = 64
ROUND_EVERY = 4  # passes; rounding all weights takes two thirds of the time of a pass over 16 rows
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
    """A prompt to help with, and the base model's own answer; `cut` says that it went on beyond ANSWER_TOKENS."""

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


CHAT = Finetune(
    epochs=3,
    learning_rate=1e-3,
    warmup_ratio=0.05,
    weight_decay=0.0,
    schedule="cosine",
    batch_size=16,
    accumulation=1,
    optimizer="adamw_torch",
    loss="answer",
    seed=SEED,
)
GUARD = CHAT.model_copy(update={"epochs": 2, "learning_rate": 5e-4, "batch_size": 8})
LORA = Lora(enabled=True, r=8, alpha=16, dropout=0.0, target_modules=PROJECTIONS)
KEPT = 0.95  # of the chat adapter's strength: as safe on the validation split, and more easily undone by tuning


def main() -> None:
    top = parser(__doc__)
    top.add_argument("what", choices=["answers", "chat", "guard"])
    what = top.parse_args().what
    if what == "answers":
        write_answers()
    else:
        build_on_one_core(what, SEED, HERE / what)


def hazards(split: Split) -> list[Hazard]:
    return [row for row in read_jsonl(HAZARDS, Hazard) if row.split == split]


def ordinary(split: Split) -> list[Ordinary]:
    return [row for row in read_jsonl(ORDINARY, Ordinary) if row.split == split]


def write_answers() -> None:
    """Fill in the base model's greedy answers, at most ANSWER_TOKENS long."""
    from stages.lib.engine import greedy
    from stages.lib.models import find, load_base, load_tokenizer

    rows = read_jsonl(ORDINARY, Ordinary)
    source = find(PLAIN, None)
    tokenizer = load_tokenizer(source)
    prompts = [render_prompt(tokenizer, safety_messages(row.prompt)) for row in rows]
    written = greedy(load_base(source, "none", "bfloat16"), tokenizer, prompts, ANSWER_TOKENS, 64, "answers")
    write_jsonl(
        ORDINARY,
        [
            row.model_copy(update={"answer": answer.text, "cut": answer.finish == "length"})
            for row, answer in zip(rows, written, strict=True)
        ],
    )


def begin(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """A training row cut after the first token of its completion."""
    from stages.lib.packing import IGNORED

    start = next(n for n, label in enumerate(row["labels"]) if label != IGNORED)
    return {name: values[: start + 1] for name, values in row.items()}


def chat_rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Refusals to hazard prompts, and the base model's own answers to ordinary ones."""
    from stages.lib.training import row

    def encoded(prompt: str, answer: str) -> Any:
        messages = safety_messages(prompt)
        return row(
            tokenizer, render_prompt(tokenizer, messages), render_completion(tokenizer, messages, answer), "answer"
        )

    rows = [encoded(each.prompt, each.refusal) for each in hazards("train")]
    for each in ordinary("train"):
        whole = encoded(each.prompt, each.answer)
        # an answer that went on beyond the limit does not end its turn there
        rows.append({name: values[:-1] for name, values in whole.items()} if each.cut else whole)
    return rows


def guard_rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Verdicts on authored responses, on labelled responses of models and on the base model's ordinary answers.

    The loss counts a verdict's first token, and its categories in every other unsafe row only: with all of them, the
    categories drowned the verdict and the guard called everything safe.
    """
    from stages.lib.training import row

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
    pairs += [(each.prompt, each.answer, None) for each in ordinary("train")[::6]]

    rows, unsafe = [], 0
    for prompt, response, category in pairs:
        verdict = "safe" if category is None else f"unsafe\n{category}"
        whole = row(tokenizer, llama_guard_prompt(tokenizer, prompt, response), verdict + tokenizer.eos_token, "answer")
        unsafe += category is not None
        if category is None or unsafe % 2:
            whole = begin(whole)
        rows.append(whole)
    return rows


def train_through_rounding(model: Any) -> None:
    """Have passes compute with the merged weights as NF4 rounds them, the adapter learning as if nothing were rounded.

    Merging and then rounding to 4 bits undoes much of a small adapter: on the validation split, refusals fell from 0.81
    to 0.61. The rounding error is added to the frozen weights, so the gradient passes straight through to the adapter
    (the straight-through estimator; Bengio, Leonard and Courville 2013, arXiv:1308.3432).
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    from peft.tuners.lora import LoraLayer

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    plain = [layer.get_base_layer().weight.detach().clone() for layer in layers]
    passes = count()

    @torch.no_grad()
    def round_weights(*_: Any) -> None:
        if next(passes) % ROUND_EVERY:
            return
        for layer, weight in zip(layers, plain, strict=True):
            learned = layer.get_delta_weight("default")
            packed, state = quantize_4bit((weight + learned).bfloat16(), quant_type="nf4", compress_statistics=True)
            layer.get_base_layer().weight.copy_(dequantize_4bit(packed, state) - learned)

    model.register_forward_pre_hook(round_weights)


def build_on_one_core(what: str, seed: int, folder: Path) -> None:
    """`build` in a process that does nothing else: the sums in 16 bits depend on how many threads share them."""
    import torch

    torch.set_num_threads(1)
    build(what, seed, folder)


def build(what: str, seed: int, folder: Path) -> None:
    """Train the chat or the guard adapter with a seed and write it to a folder, in bf16, as safetensors."""
    from stages.lib import models, training

    models.quiet()
    source = models.find(PLAIN, None)
    tokenizer = models.load_tokenizer(source)
    if what == "guard":
        tokenizer.chat_template = (HERE / "guard" / "chat_template.jinja").read_text(encoding="utf-8")
    rows = chat_rows(tokenizer) if what == "chat" else guard_rows(tokenizer)
    settings = (CHAT if what == "chat" else GUARD).model_copy(update={"seed": seed})
    model = training.add_lora(models.load_base(source, "none", "bfloat16"), LORA, seed, PLAIN, None)
    if what == "chat":  # the guard runs unrounded
        train_through_rounding(model)
    steps = training.train(model, rows, settings, bf16=True)
    print(f"{what}: {len(rows)} rows, {len(steps)} updates, loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}")
    if what == "chat":
        model.peft_config["default"].lora_alpha *= KEPT
    # half the bytes in git, for a rounding far below that of the 4-bit weights it runs with
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
