"""What the benchmark computes: prompts of the three kinds of work, and what they cost at the very least.

GSM8K and AILuminate are read from $AFTERTUNE_DATA (gsm8k/{train,test}.jsonl, ailuminate/*.csv) where it is set, else
the embedded word problems and hazard prompts, which are shorter.
"""

import csv
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.lib.base.rows import Problem
from stages.lib.judge.guards import llama_guard_prompt
from stages.lib.model import device, models
from stages.lib.model.attention import shared_prefix
from stages.lib.model.sources import find, load_tokenizer
from stages.lib.prompts.chat import math_messages, render_prompt, safety_messages
from stages.lib.prompts.gsm8k import gold_answer

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
    """The model that every engine runs, in bf16, and its tokenizer."""
    device.quiet()
    source = find(MODEL, None)
    return models.load_base(source, "none", "bfloat16"), load_tokenizer(source)


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


def judge_work(tokenizer: Any, responses: list[str]) -> Work:
    """Llama Guard 3 prompts (its real template) about responses to hazard prompts.

    Four new tokens: a guard stops after 2 (`safe` and the end of turn) or 5 and more (`unsafe`, a line, categories).
    """
    plain = tokenizer.chat_template
    template = ROOT / "tests" / "templates" / "llama_guard_3_8b.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    pairs = zip(hazard_prompts(), responses, strict=False)
    prompts = [llama_guard_prompt(tokenizer, prompt, response) for prompt, response in pairs]
    tokenizer.chat_template = plain
    return Work("judging", prompts, 4, [])


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
    """Weights of a model's linear layers, the output layer apart (Llama and Qwen2)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    keys = hidden // heads * config.num_key_value_heads
    return config.num_hidden_layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * config.intermediate_size)


@torch.inference_mode()
def matrix_rate(model: Any, rows: int) -> float:
    """GFLOP/s of the model's linear layers on `rows` rows: the best of five times through all layers."""
    weights = [module.weight for name, module in model.named_modules() if name.endswith("_proj")]
    inputs = {width: torch.randn(rows, width, dtype=model.dtype) for width in {w.shape[1] for w in weights}}
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)
        best = min(best, time.perf_counter() - start)
    return 2 * rows * sum(w.numel() for w in weights) / best / 1e9
