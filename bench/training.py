"""Training rows packed behind one prefix against transformers' Trainer on the same rows, padded: time and peak memory.

    python -m bench.training packed|unpacked SHOTS     one measurement, as JSON; bench.speed runs them in turn

LoRA r=8 on all projections, no dropout, NF4, batch 4; rows of the shortest third, spread over its lengths.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from stages.lib.base.cli import run

ROWS = {5: 8, 0: 16}  # rows of one measurement, by shots
BATCH = 4


def compare(model: str, rounds: int) -> dict[str, dict]:
    """Seconds per row and peak memory of both ways, in turn, each in a process of its own."""
    found = {}
    for shots in ROWS:
        taken: dict[str, list[dict]] = {"packed": [], "unpacked": []}
        for _ in range(rounds):
            for way, measured in taken.items():
                command = [sys.executable, "-m", "bench.training", way, str(shots), model]
                done = subprocess.run(
                    command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
                )
                measured.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"training, {shots} shots, {way}: {measured[-1]}", file=sys.stderr)
        times = [a["seconds_per_row"] / b["seconds_per_row"] for a, b in zip(*reversed(taken.values()), strict=True)]
        found[f"{shots} shots"] = {
            "rows": ROWS[shots],
            **{way: measured for way, measured in taken.items()},
            "times_faster": [round(value, 2) for value in times],
            "mean_loss_difference": abs(mean(taken["packed"][0]["loss"]) - mean(taken["unpacked"][0]["loss"])),
        }
    return found


def main() -> None:
    way, shots, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    from bench import work
    from stages.lib.base.cost import peak_memory_mib
    from stages.lib.base.params import load_params
    from stages.lib.model import device, models, sources
    from stages.lib.model.attention import shared_prefix
    from stages.lib.train import encoding, training

    device.quiet()
    params = load_params()
    _, file, _, _ = work.sources()
    problems = work.problems(file)
    examples, rest = problems[:shots], problems[shots:]
    third = sorted(rest, key=lambda row: len(row.question + row.answer))[: len(rest) // 3]
    chosen = third[:: len(third) // ROWS[shots]][: ROWS[shots]]
    source = sources.find(name, None)
    tokenizer = sources.load_tokenizer(source)
    rows = [encoding.encode(tokenizer, row, examples, "answer") for row in chosen]
    base = models.load_base(source, "nf4", "bfloat16")
    model = training.add_lora(base, params.lora, 5, name, None)
    settings = params.finetune.model_copy(update={"batch_size": BATCH, "accumulation": 1, "epochs": 1})
    start = time.perf_counter()
    if way == "packed":
        losses = [step["loss"] for step in training.train(model, rows, settings, bf16=True)]
    else:
        losses = unpacked(model, rows, tokenizer.pad_token_id, settings)
    seconds = time.perf_counter() - start
    lengths = [len(row["input_ids"]) for row in rows]
    shared = shared_prefix([row["input_ids"] for row in rows])
    measured = {
        "seconds_per_row": round(seconds / len(rows), 3),
        "peak_memory_mib": peak_memory_mib(),
        "loss": losses,
        "tokens": {"shared": shared, "then": mean(lengths) - shared},
    }
    print(json.dumps(measured))


def unpacked(model: Any, rows: list[dict], pad: int, settings: Any) -> list[float]:
    """The Trainer as people use it: rows padded on the right to the longest of their batch, the model's own loss."""
    import torch
    from transformers import Trainer

    from stages.lib.train import training

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)

        def padded(values: list[int], fill: int) -> list[int]:
            return values + [fill] * (longest - len(values))

        return {
            "input_ids": torch.tensor([padded(row["input_ids"], pad) for row in batch]),
            "attention_mask": torch.tensor([padded([1] * len(row["input_ids"]), 0) for row in batch]),
            "labels": torch.tensor([padded(row["labels"], -100) for row in batch]),
        }

    model.config.use_cache = False
    with tempfile.TemporaryDirectory() as folder:
        arguments = training.arguments(settings, settings.batch_size, settings.accumulation, True, folder)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
        trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


if __name__ == "__main__":
    run(main)
