"""LoRA or full-parameter tuning with transformers' Trainer: rows in, a tuned model and its loss curve out."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from peft import LoraConfig, TaskType, get_peft_model
from peft.helpers import disable_input_dtype_casting
from safetensors.torch import load_file
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_json
from stages.lib.base.processes import count, is_first
from stages.lib.base.sections import Finetune, Lora
from stages.lib.model.attention import shared_prefix, use_attention
from stages.lib.model.device import computed_in, device, is_out_of_memory
from stages.lib.model.embedded import WEIGHTS
from stages.lib.model.merging import check_same, tied
from stages.lib.model.models import check_length
from stages.lib.train.checkpoints import Checkpoints, last_good
from stages.lib.train.packing import IGNORED, NAME, Row, begins_with, loss_in_pieces, pack, rows_per_pack
from stages.lib.train.watching import Divergence, Progress


def add_lora(model: Any, lora: Lora, seed: int, name: str, revision: str | None) -> Any:
    """The model, frozen, with a fresh adapter on its target modules (B zero, so that it starts as the base model)."""
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    shared = tied(model)
    for module in lora.target_modules:
        if module in shared:
            raise BadInput(
                f"lora.target_modules: {module!r} is the embedding as well in this model: an adapter on it could not "
                f"be merged into what was measured; leave it out, there is {sorted(linear - shared)}"
            )
        if module not in linear:
            raise BadInput(
                f"lora.target_modules: the model has no linear module {module!r}; it has {sorted(linear - shared)}"
            )
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
    # peft would ask the hub, at every checkpoint, whether the base vocabulary grew; it did not
    tuned.save_pretrained = partial(tuned.save_pretrained, save_embedding_layers=False)
    # peft would open a checkpoint's adapter on the first GPU, in every process
    tuned.load_adapter = partial(tuned.load_adapter, torch_device=str(model.device))
    return tuned


def train(
    model: Any,
    rows: Sequence[Row],
    settings: Finetune,
    bf16: bool,
    keep: Path | None = None,
    replayed: Sequence[Row] = (),
) -> list[dict[str, float]]:
    """Train in place; returns one {step, epoch, loss, learning_rate} per optimizer update.

    The rows of an update are packed behind one copy of what all training rows begin with, in as few passes as they fit.
    The `replayed` ones, of another kind, are mixed in, and begin with as much of that as they do.
    `bf16` asks for mixed precision, which is used where this machine computes in 16 bits. With a folder to `keep`
    checkpoints in, it goes on from the last good one there. Raises BadInput if the loss is no number any more or
    explodes, and if memory does not hold a pass.
    """
    prefix = rows[0]["input_ids"][: shared_prefix([row["input_ids"] for row in rows])]
    rows = [*rows, *replayed]
    check_length(model, [len(row["input_ids"]) for row in rows], "finetune: training row")
    lengths = [len(prefix) + len(row["input_ids"]) - begins_with(row, prefix) for row in rows]
    share, rest = divmod(settings.batch_size * settings.accumulation, count())
    if rest:
        raise BadInput(
            f"finetune: an update of finetune.batch_size {settings.batch_size} times accumulation "
            f"{settings.accumulation} rows cannot be shared evenly by {count()} processes (machine.processes)"
        )
    packed = rows_per_pack(lengths, len(prefix), min(settings.batch_size, share), share)
    bf16 = bf16 and computed_in("bfloat16") == "bfloat16"
    model.config.use_cache = False
    with (
        TemporaryDirectory() as unused,  # Trainer makes its output folder even when nothing is saved there
        use_attention(model, NAME),
        disable_input_dtype_casting(model, bf16),  # to 32 bits, from which autocast comes back to the same 16
        loss_in_pieces(model, bf16, settings.kl) as loss,
    ):
        trainer = _Trainer(
            model=model,
            args=_one_device(arguments(settings, packed, share // packed, bf16, str(keep or unused))),
            train_dataset=[*rows, *_silent(rows, packed)],
            data_collator=lambda batch: pack(batch, prefix),
            compute_loss_func=loss,
            callbacks=[Progress(), Divergence(), *([Checkpoints()] if keep else [])],
        )
        trainer.remove_callback(PrinterCallback)
        start = last_good(keep) if keep else None
        if start and is_first():
            print(f"finetune: going on from {start}", file=sys.stderr)
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BadInput(
                f"finetune: not enough memory for a pass of {packed} rows, the longest of {max(lengths)} tokens. Set "
                "finetune.batch_size lower and finetune.accumulation higher by as much (the updates stay the same), "
                "model.quantization to nf4, or fewshot.shots lower; what was trained so far is kept"
            ) from None
    keys = ("step", "epoch", "loss", "learning_rate")
    return [{key: log[key] for key in keys} for log in trainer.state.log_history if "loss" in log]


def arguments(settings: Finetune, packed: int, passes: int, bf16: bool, folder: str) -> TrainingArguments:
    """Trainer's arguments for these settings: `passes` of `packed` rows are a process's share of an update.

    Checkpoints go to `folder`.
    """
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # `accelerate launch` sets what its own configuration says
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
        gradient_accumulation_steps=passes,
        ddp_find_unused_parameters=False,
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


def _silent(rows: Sequence[Row], packed: int) -> list[Row]:
    """Rows without loss that fill up an epoch, so that each process has as many passes of `packed` rows as the others.

    Accelerate would fill it up with rows seen before, which one process alone would not train on again.
    """
    if count() == 1:
        return []
    shortest = min(rows, key=lambda row: len(row["input_ids"]))
    return [{**shortest, "labels": [IGNORED] * len(shortest["labels"])}] * (-len(rows) % (packed * count()))


class _Trainer(Trainer):
    """Shuffles as one process would, and puts the silent rows last."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = [row for row in self.train_dataset if set(row["labels"]) != {IGNORED}]
        if len(rows) == len(self.train_dataset):
            return super()._get_train_sampler(train_dataset)
        return _SilentLast(SeedableRandomSampler(rows, data_seed=self.args.data_seed), len(self.train_dataset))


@dataclass(frozen=True)
class _SilentLast(Sampler):
    """The order in which accelerate shuffles the rows, then the silent ones."""

    rows: SeedableRandomSampler
    all_rows: int

    def __len__(self) -> int:
        return self.all_rows

    def __iter__(self) -> Iterator[int]:
        yield from self.rows
        yield from range(len(self.rows), self.all_rows)

    def set_epoch(self, epoch: int) -> None:
        self.rows.set_epoch(epoch)


def save(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Write an adapter, or all weights in `dtype` with the tokenizer, as safetensors."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config["target_modules"].sort()  # a set in peft, in another order in every process
        write_json(folder / "adapter_config.json", config)
        _check_saved(model, folder)
    else:
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _check_saved(model: Any, folder: Path) -> None:
    """Every weight that was trained is in the adapter's file, to the bit: what is measured is what was trained."""
    trained = {name.replace(".default.", "."): weight for name, weight in model.named_parameters() if "lora_" in name}
    check_same({name: weight.cpu() for name, weight in trained.items()}, load_file(folder / WEIGHTS), folder)
