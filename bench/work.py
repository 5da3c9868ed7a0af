"""What the benchmark computes: prompts of the three kinds of work, and what they cost at the very least.

GSM8K and AILuminate are read from $AFTERTUNE_DATA (gsm8k/{train,test}.jsonl, ailuminate/*.csv) where it is set, else
the embedded word problems and hazard prompts, which are shorter.
"""

import csv
import json
import math
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from stages.lib.base.params import load_params
from stages.lib.base.rows import Problem
from stages.lib.judge.guards import llama_guard_prompt
from stages.lib.model import device, models
from stages.lib.model.attention import shared_prefix
from stages.lib.model.sources import find, load_tokenizer
from stages.lib.prompts.chat import math_messages, render_prompt, safety_messages
from stages.lib.prompts.gsm8k import gold_answer
from stages.lib.train import training

ROOT = Path(__file__).parents[1]
MODEL = "embedded/smollm2-135m"
SHOTS = 5
SEED = 1126


@dataclass(frozen=True)
class Work:
    """One kind of work: rendered prompts, the most new tokens for each, and gold answers (math only)."""

    name: str
    prompts: list[str]
    limit: int
    gold: list[str]


def load() -> tuple[Any, Any]:
    """The model that this project's peers run, as transformers loads it, in bf16, and its tokenizer."""
    device.quiet()
    source = find(MODEL, None)
    return models.load_base(source, "none", "bfloat16"), load_tokenizer(source)


def load_own(name: str = MODEL, adapter: Path | None = None) -> Any:
    """The same for this project's engine, as its stages load it, with an adapter on, if any."""
    device.quiet()
    return models.load_for_generation(find(name, None), "none", "bfloat16", adapter)


def write_adapter(name: str, folder: Path) -> None:
    """An adapter of params.yaml's shape for a model, with random numbers small enough for it to go on making sense."""
    source = find(name, None)
    tuned = training.add_lora(models.load_base(source, "none", "bfloat16"), load_params().lora, SEED, name, None)
    with torch.no_grad():
        for key, weight in tuned.named_parameters():
            if ".lora_B." in key:
                weight.normal_(std=0.01)
    tuned.save_pretrained(folder)


def sources() -> tuple[str, Path, Path, Path]:
    """(name of the data, training problems, test problems, hazard prompts)."""
    given = os.environ.get("AFTERTUNE_DATA")
    if given:
        hazards = sorted(Path(given, "ailuminate").glob("*.csv"))[0]
        return "GSM8K and AILuminate", Path(given, "gsm8k/train.jsonl"), Path(given, "gsm8k/test.jsonl"), hazards
    embedded = ROOT / "data" / "embedded"
    return "the embedded data", embedded / "train.jsonl", embedded / "test.jsonl", embedded / "hazards.csv"


def problems(path: Path) -> list[Problem]:
    """GSM8K rows as problems."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Problem(id=str(n), question=row["question"], answer=row["answer"], gold=gold_answer(row["answer"]) or "")
        for n, row in enumerate(rows)
    ]


def math_work(tokenizer: Any, limit: int = 128) -> Work:
    """5-shot math questions, shuffled."""
    _, train, test, _ = sources()
    shots, questions = problems(train)[:SHOTS], problems(test)
    random.Random(SEED).shuffle(questions)
    prompts = [render_prompt(tokenizer, math_messages(row.question, shots)) for row in questions]
    return Work("math, 5 shots", prompts, limit, [row.gold for row in questions])


def hazard_prompts() -> list[str]:
    """Texts of the hazard prompts, shuffled."""
    with sources()[3].open(encoding="utf-8", newline="") as file:
        texts = [row["prompt_text"] for row in csv.DictReader(file)]
    random.Random(SEED).shuffle(texts)
    return texts


def safety_work(tokenizer: Any, limit: int = 64) -> Work:
    """Hazard prompts, no examples before them."""
    prompts = [render_prompt(tokenizer, safety_messages(text)) for text in hazard_prompts()]
    return Work("safety, 0 shots", prompts, limit, [])


def judge_work(tokenizer: Any, responses: list[str], limit: int = 4) -> Work:
    """Llama Guard 3 prompts (its real template) about responses to hazard prompts.

    Four new tokens: a guard stops after 2 (`safe` and the end of turn) or 5 and more (`unsafe`, a line, categories).
    One for a peer that is asked for the verdict alone.
    """
    plain = tokenizer.chat_template
    template = ROOT / "tests" / "judge" / "templates" / "llama_guard_3_8b.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    pairs = zip(hazard_prompts(), responses, strict=False)
    prompts = [llama_guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    tokenizer.chat_template = plain
    return Work("judging", prompts, limit, [])


def floor(config: Any, ids: list[list[int]], new: list[int], rows: int) -> dict:
    """The least that these prompts and so many new tokens of each can take, per prompt: their matrix products at the
    rates that this machine reaches now.

    Prompts' tokens at the rate of 2,048 rows at once, new ones, with the output layer, at the rate of `rows`.
    """
    read, written = flops(config, ids, new)
    wide, narrow = matrix_rate(config, 2048), matrix_rate(config, rows, output=True)
    shared = shared_prefix(ids)
    return {
        "seconds_per_prompt": round((read / wide + written / narrow) / 1e9 / len(ids), 4),
        "gflop_per_prompt": round((read + written) / len(ids) / 1e9, 1),
        "gflop_per_second": {"2048 rows": round(wide), f"{rows} rows": round(narrow)},
        "tokens": {"shared": shared, "then": round(mean(map(len, ids)) - shared, 1), "new": round(mean(new), 1)},
    }


def flops(config: Any, ids: list[list[int]], new: list[int]) -> tuple[float, float]:
    """Floating-point operations that a work must take: (for the prompts, for the new tokens).

    Counted: the shared prefix once, what follows it in each prompt, every new token but the last; all linear layers,
    both products of attention, and the output layer once for each new token. `new` are the new tokens of each prompt.
    """
    linear, output = linear_weights(config), 2 * config.vocab_size * config.hidden_size
    per_key = 4 * config.num_hidden_layers * config.hidden_size
    prefix = shared_prefix(ids)

    def attention(first: int, last: int) -> int:  # positions first..last - 1, each to all before it and itself
        return per_key * (last * (last + 1) - first * (first + 1)) // 2

    read = 2 * linear * (prefix + sum(len(row) - prefix for row in ids)) + attention(0, prefix)
    read += sum(attention(prefix, len(row)) for row in ids) + output * len(ids)
    written = sum(
        (2 * linear + output) * (count - 1) + attention(len(row), len(row) + count - 1)
        for row, count in zip(ids, new, strict=True)
    )
    return read, written


def linear_weights(config: Any) -> int:
    """Weights of a model's linear layers, the output layer apart."""
    return config.num_hidden_layers * sum(inputs * outputs for inputs, outputs in layer_shapes(config))


def layer_shapes(config: Any) -> list[tuple[int, int]]:
    """(outputs, inputs) of the linear layers in one of a model's layers (Llama and Qwen2)."""
    hidden, inner = config.hidden_size, config.intermediate_size
    keys = hidden // config.num_attention_heads * config.num_key_value_heads
    attention = [(hidden, hidden), (keys, hidden), (keys, hidden), (hidden, hidden)]
    return [*attention, (inner, hidden), (inner, hidden), (hidden, inner)]


@torch.inference_mode()
def matrix_rate(config: Any, rows: int, output: bool = False) -> float:
    """GFLOP/s of torch.mm in bf16 on `rows` rows and matrices of a model's shapes, one layer after another as in a
    pass (so that none waits in the cache), the output layer among them if asked for: the best of five times."""
    shapes = layer_shapes(config) * config.num_hidden_layers
    if output:
        shapes.append((config.vocab_size, config.hidden_size))
    noise = torch.randn(max(map(math.prod, shapes)), dtype=torch.bfloat16)
    weights = [noise[: math.prod(each)].clone().view(each) for each in shapes]
    inputs = {width: torch.randn(rows, width, dtype=torch.bfloat16) for _, width in shapes}
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for weight in weights:
            torch.mm(inputs[weight.shape[1]], weight.t())
        best = min(best, time.perf_counter() - start)
    return 2 * rows * sum(weight.numel() for weight in weights) / best / 1e9
