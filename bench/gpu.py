"""The same code at the real shapes on a GPU: Qwen2.5-1.5B and 7B with random weights, NF4, 5 shots, 512 new tokens.

    make bench-gpu        (or: python -m bench.gpu)

Random weights never end a turn, so every answer is 512 tokens long: the rates are those of full slots. For each size:
tokens per second and peak memory of generation at several numbers of slots, with the share of the device's measured
bandwidth (weights and keys read at each step) and matrix rate; then training, packed and row by row. Writes
bench/gpu.json. Needs a GPU with 40 GiB or more and 20 GB of disk.
"""

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from bench import work
from bench.training import unpacked
from stages.lib.base.cli import run
from stages.lib.base.cost import peak_gpu_memory_mib
from stages.lib.base.files import write_text
from stages.lib.base.params import load_params
from stages.lib.base.sections import Lora
from stages.lib.generate import engine
from stages.lib.model import device, models, sources
from stages.lib.model.attention import shared_prefix
from stages.lib.train import encoding, training

SIZES = {
    "Qwen2.5-1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    "Qwen2.5-7B": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
}
SLOTS = (64, 256)
LIMIT = 512
TRAINED = 16  # rows


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("bench.gpu: no GPU here; on the CPU, run `make bench`")
    device.quiet()
    tokenizer = sources.load_tokenizer(sources.find(work.MODEL, None))
    bandwidth, rate = device_bandwidth(), device_rate()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "gigabytes_per_second": round(bandwidth / 1e9),
        "tflop_per_second": round(rate / 1e12),
    }
    for name, shape in SIZES.items():
        config = Qwen2Config(**shape, num_hidden_layers=28, vocab_size=151936, tie_word_embeddings="1.5B" in name)
        with tempfile.TemporaryDirectory() as folder:
            random_model(config, Path(folder))
            source = sources.Source(folder, None)
            model = models.load_for_generation(source, "nf4", "bfloat16")
            measured = [generation(model, tokenizer, slots, LIMIT, bandwidth, rate) for slots in SLOTS]
            del model
            results[name] = {"generation": measured, "training": trainings(source, tokenizer, TRAINED)}
        write_text(Path(__file__).with_name("gpu.json"), json.dumps(results, indent=2) + "\n")
        print(json.dumps(results[name]), file=sys.stderr)


def random_model(config: Qwen2Config, folder: Path) -> None:
    """Write a model with random weights of these shapes in bf16."""
    with torch.device(device.device()):
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    free()


def generation(model: Any, tokenizer: Any, slots: int, limit: int, bandwidth: float, rate: float) -> dict:
    """Twice as many 5-shot questions as slots: tokens per second, peak memory, shares of bandwidth and matrix rate."""
    free()
    job = work.math_work(tokenizer, limit)
    prompts = (job.prompts * slots)[: 2 * slots]
    engine.greedy(engine.Engine(model, tokenizer, slots), prompts[:4], 4, "warm-up")
    start = time.perf_counter()
    out = engine.greedy(engine.Engine(model, tokenizer, slots), prompts, limit, "bench")
    seconds = time.perf_counter() - start
    tokens = sum(row.tokens for row in out)
    ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    steps = 2 * limit  # two rounds of full slots
    prefix, config = shared_prefix(ids), model.config
    dim = config.hidden_size // config.num_attention_heads
    key_numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * dim
    own = sum(map(len, ids)) / len(ids) - prefix + limit / 2
    read = steps * 2 * (model.num_parameters() + key_numbers * (prefix + slots * own))
    return {
        "slots": slots,
        "prompts": len(prompts),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "share_of_bandwidth": round(read / seconds / bandwidth, 3),
        "share_of_matrix_rate": round(sum(work.flops(config, ids, [row.tokens for row in out])) / seconds / rate, 3),
        "peak_memory_mib": peak_gpu_memory_mib(),
    }


def trainings(source: sources.Source, tokenizer: Any, count: int) -> dict[str, dict]:
    """Seconds per row and peak memory of LoRA training at the paper's batch (1, accumulated 4 times)."""
    _, file, _, _ = work.sources()
    problems = work.problems(file)
    rows = [encoding.encode(tokenizer, row, problems[:5], "answer") for row in problems[5 : 5 + count]]
    settings = load_params().finetune.model_copy(update={"batch_size": 1, "accumulation": 4, "epochs": 1})
    lora = Lora(**{**load_params().lora.model_dump(), "dropout": 0.1})
    found = {}
    ways = {
        "packed": lambda model, rows: training.train(model, rows, settings, bf16=True),
        "row by row": lambda model, rows: unpacked(model, rows, 0, settings),
    }
    for way, train in ways.items():
        free()
        model = training.add_lora(models.load_base(source, "nf4", "bfloat16"), lora, 5, "random", None)
        train(model, rows[:4])  # warm-up
        start = time.perf_counter()
        train(model, rows)
        seconds = time.perf_counter() - start
        found[way] = {"seconds_per_row": round(seconds / count, 3), "peak_memory_mib": peak_gpu_memory_mib()}
        del model
    return found


def device_bandwidth() -> float:
    """Bytes per second, read and written, of a copy on the device."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device.device())
    return 2 * source.numel() / timed(source.clone)


def device_rate() -> float:
    """Floating-point operations per second of a large bf16 matrix product."""
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device=device.device()) for _ in range(2))
    return 2 * 8192**3 / timed(lambda: a @ b)


def timed(run: Any) -> float:
    """Seconds of the best of five runs."""
    best = float("inf")
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    run(main)
