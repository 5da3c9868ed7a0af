"""LoRA or full-parameter tuning with transformers' Trainer: rows in, a tuned model and its loss curve out."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from stages.lib.attention import shared_prefix, use_attention
from stages.lib.chat import math_messages, render_completion, render_prompt
from stages.lib.errors import BadInput
from stages.lib.gsm8k import SOLUTION
from stages.lib.models import check_length, device
from stages.lib.packing import IGNORED, NAME, Row, pack, packed_loss, rows_per_pack
from stages.lib.params import Finetune, Lora
from stages.lib.records import Problem, write_json


def encode(tokenizer: Any, problem: Problem, shots: Sequence[Problem], loss: str) -> Row:
    """input_ids and labels of one training row: prompt as in testing, then the worked solution and the end of turn.

    loss `answer` counts the solution's tokens only, `text` every token, examples included.
    """
    messages = math_messages(problem.question, shots)
    answer = SOLUTION.format(answer=problem.answer)
    return row(tokenizer, render_prompt(tokenizer, messages), render_completion(tokenizer, messages, answer), loss)


def row(tokenizer: Any, prompt: str, completion: str, loss: str) -> Row:
    """input_ids and labels of a rendered prompt and its completion; loss as in `encode`."""
    shown, written = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
    counted = shown if loss == "text" else [IGNORED] * len(shown)
    return {"input_ids": shown + written, "labels": counted + written}


def add_lora(model: Any, lora: Lora, seed: int, name: str, revision: str | None) -> Any:
    """The model, frozen, with a fresh adapter on its target modules (B zero, so that it starts as the base model)."""
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    unknown = [name for name in lora.target_modules if name not in linear]
    if unknown:
        raise BadInput(f"lora.target_modules: the model has no linear module {unknown[0]!r}; it has {sorted(linear)}")
    set_seed(seed)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
    )
    tuned = get_peft_model(model, config)
    config.base_model_name_or_path, config.revision = name, revision  # the name, not this machine's folder
    return tuned


def train(model: Any, rows: Sequence[Row], settings: Finetune, bf16: bool) -> list[dict]:
    """Train in place; returns one {step, epoch, loss, learning_rate} per optimizer update.

    The rows of an update are packed behind one copy of what all training rows begin with, in as few passes as they fit.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    check_length(model, lengths, "finetune: training row")
    prefix = shared_prefix([row["input_ids"] for row in rows])
    packed = rows_per_pack(lengths, prefix, settings.batch_size, settings.accumulation)
    model.config.use_cache = False
    # Trainer makes its output folder even when nothing is saved there
    with TemporaryDirectory() as unused, use_attention(model, NAME):
        trainer = Trainer(
            model=model,
            args=_one_device(arguments(settings, packed, bf16, unused)),
            train_dataset=list(rows),
            data_collator=lambda batch: pack(batch, prefix),
            compute_loss_func=packed_loss,
            callbacks=[_Progress()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    keys = ("step", "epoch", "loss", "learning_rate")
    return [{key: log[key] for key in keys} for log in trainer.state.log_history if "loss" in log]


def arguments(settings: Finetune, packed: int, bf16: bool, folder: str) -> TrainingArguments:
    """Trainer's arguments for these settings, `packed` rows to a pass, its unused files in `folder`."""
    on_gpu = device().type == "cuda"
    optimizer = settings.optimizer
    if optimizer == "auto":
        optimizer = "paged_adamw_32bit" if on_gpu else "adamw_torch"
    return TrainingArguments(
        output_dir=folder,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        bf16=bf16,
        per_device_train_batch_size=packed,
        gradient_accumulation_steps=settings.batch_size * settings.accumulation // packed,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        warmup_steps=settings.warmup_ratio,  # below 1 it is a ratio of all steps
        weight_decay=settings.weight_decay,
        optim=optimizer,
        seed=settings.seed,
        data_seed=settings.seed,
    )


def _one_device(arguments: TrainingArguments) -> TrainingArguments:
    """Train on one GPU where there are several: Trainer would multiply the batch by their number."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


class _Progress(TrainerCallback):
    """A bar with rate, time left and the last loss; nothing when stderr is not a terminal."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, desc="finetune", unit="step", disable=not sys.stderr.isatty())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


def save(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Write an adapter, or all weights in `dtype` with the tokenizer, as safetensors."""
    if hasattr(model, "peft_config"):
        # peft would ask the hub whether the base vocabulary grew; it did not
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config["target_modules"].sort()  # a set in peft, in another order in every process
        write_json(folder / "adapter_config.json", config)
    else:
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
