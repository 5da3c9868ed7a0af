"""The adapter that TRL makes of the same rows by the same parameters: what was tuned elsewhere, to measure beside ours.

    pip install trl==1.16.0
    python -m stages.prepare && python -m bench.trl_adapter FOLDER
    dvc exp run -S tuned.model=FOLDER -S tuned.files=FOLDER
    python -m bench.trl_adapter alike FOLDER OTHER      how much alike two adapters are

Reads params.yaml and data/prepared; TRL's SFTTrainer does the rest in its own way: it renders the prompts and the
completions by the chat template, pads the rows of a batch, draws the adapter's first values and writes the adapter.
"""

import math
import sys
from pathlib import Path
from typing import Any

from stages.lib.base.cli import run
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import load_params
from stages.lib.base.rows import Problem, read_jsonl
from stages.lib.prompts.chat import math_messages
from stages.lib.prompts.gsm8k import SOLUTION


def main() -> None:
    if sys.argv[1:2] == ["alike"]:
        print(f"cosine of the two changes of the weights: {alike(*map(Path, sys.argv[2:])):.4f}")
    else:
        train(*sys.argv[1:])


def train(folder: str) -> None:
    """Train by params.yaml on data/prepared, and write the adapter as TRL does."""
    params = load_params()
    rows, pool = (read_jsonl(PREPARED / f"{name}.jsonl", Problem) for name in ("train", "shots"))
    shots = pool[: params.fewshot.shots]

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from stages.lib.model.device import computed_in
    from stages.lib.model.models import nf4
    from stages.lib.model.sources import find

    model, lora, settings = params.model, params.lora, params.finetune
    source = find(model.name, model.revision).path
    dtype = getattr(torch, computed_in(model.dtype))
    options: dict[str, Any] = {"dtype": dtype}
    if model.quantization == "nf4":
        options["quantization_config"] = nf4(dtype)
    asked = [
        {
            "prompt": math_messages(row.question, shots),
            "completion": [{"role": "assistant", "content": SOLUTION.format(answer=row.answer)}],
        }
        for row in rows
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, **options),
        processing_class=AutoTokenizer.from_pretrained(source),
        train_dataset=Dataset.from_list(asked),
        args=SFTConfig(
            output_dir=folder,
            completion_only_loss=settings.loss == "answer",
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            warmup_steps=settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            lr_scheduler_type=settings.schedule,
            per_device_train_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.accumulation,
            gradient_checkpointing=False,
            bf16=dtype == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            seed=settings.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM",
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.target_modules),
        ),
    )
    trainer.train()
    trainer.save_model(folder)


def alike(folder: Path, other: Path) -> float:
    """The cosine between what two adapters of one scale add to the weights, over all of them."""
    from safetensors.torch import load_file

    one, two = (
        {k: v.float() for k, v in load_file(of / "adapter_model.safetensors").items()} for of in (folder, other)
    )
    inner = squares = others = 0.0
    for a in [name for name in one if ".lora_A." in name]:
        b = a.replace(".lora_A.", ".lora_B.")
        first, second = one[b] @ one[a], two[b] @ two[a]
        inner += float((first * second).sum())
        squares += float((first**2).sum())
        others += float((second**2).sum())
    return inner / math.sqrt(squares * others)


if __name__ == "__main__":
    run(main)
