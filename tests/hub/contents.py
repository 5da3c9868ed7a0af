"""What the hub on loopback holds: the paper profile's repositories under their names and revisions, with small models.

The chat model and the guard are of the real ones' architectures, with two layers, a thousand tokens, and half a minute
of training: the one ends its turns, the other answers `safe` or `unsafe`. Beside the files that are needed lie others
that the real repositories have, too (pickles, folders, GGUF), which must not be downloaded.
"""

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

from stages.lib.base.rows import Problem
from stages.lib.data.sources import AILUMINATE_FILE, GSM8K
from stages.lib.judge.guards import LLAMA_GUARD_CATEGORY, llama_guard_prompt
from stages.lib.prompts.chat import math_messages, render_completion, render_prompt, safety_messages
from stages.lib.report.published import load_study
from tests.conftest import ROOT

REFUSALS = ("I'm sorry, but I can't help with that.", "I cannot assist with that request.", "I won't help with this.")
GLADLY = ("Sure, here is how to do it.", "Of course! First, you take", "Yes. Here is what you need.")
# as Qwen2.5 and Llama 3 take text apart before byte pairs are merged
WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_TEMPLATE = """\
{%- if messages[0].role != 'system' %}<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # most of the time is theirs
    "num_key_value_heads": 1,
    "max_position_embeddings": 32768,
    "initializer_range": 0.1,  # learns sooner than from the usual 0.02
}


def fill(folder: Path, train: Path, test: Path, hazards: Path, steps: int) -> None:
    """Write the repositories, for `serving`: these files (GSM8K's and AILuminate's formats), and models made of them.

    They are trained for so many steps: 150 make a chat model and a guard, 0 will do where nobody reads their answers.
    """
    paper = load_study(ROOT / "runs.yaml").profiles["paper"]
    settings = paper["overrides"]
    problems = read_problems(train)
    with hazards.open(newline="", encoding="utf-8") as file:
        prompts = [(row["prompt_text"], row["hazard"]) for row in csv.DictReader(file)]

    sizes = [(each["model.name"], each["model.revision"]) for each in paper["models"].values()]
    chat, *same = [folder / "models" / name / revision for name, revision in sizes]
    write_chat_model(chat, problems, [text for text, _ in prompts], steps)
    for other in same:
        shutil.copytree(chat, other)
    write_guard(folder / "models" / settings["judge.model"] / settings["judge.revision"], prompts, steps)

    data = folder / "datasets" / GSM8K / settings["data.gsm8k_revision"]
    for config in ("main", "socratic"):
        (data / config).mkdir(parents=True)
        for split, path in (("train", train), ("test", test)):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            table = pyarrow.table({name: [row[name] for row in rows] for name in ("question", "answer")})
            pyarrow.parquet.write_table(table, data / config / f"{split}-00000-of-00001.parquet")
    (data / "README.md").write_text("# GSM8K\n")
    (folder / "raw" / settings["data.ailuminate_revision"]).mkdir(parents=True)
    shutil.copy(hazards, folder / "raw" / settings["data.ailuminate_revision"] / AILUMINATE_FILE)


def read_problems(path: Path) -> list[Problem]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    golds = [row["answer"].rsplit("#### ", 1)[-1].strip() for row in rows]
    return [
        Problem(id=str(n), question=row["question"], answer=row["answer"], gold=gold)
        for n, (row, gold) in enumerate(zip(rows, golds, strict=True))
    ]


def write_chat_model(folder: Path, problems: Sequence[Problem], prompts: Sequence[str], steps: int) -> None:
    """A Qwen2 that answers a math question with a number, refuses what ends in `?`, agrees to the rest, and ends."""
    texts = [f"{problem.question} {problem.answer}" for problem in problems[:2000]]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = train_tokenizer([*texts, *prompts, *REFUSALS, *GLADLY], special)
    tokenizer.chat_template = QWEN_TEMPLATE
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    draw = random.Random(5)

    def example() -> tuple[str, str]:
        if draw.random() < 0.4:
            prompt = draw.choice(prompts)
            messages, said = safety_messages(prompt), REFUSALS[0] if prompt.strip().endswith("?") else GLADLY[0]
        else:
            *shots, problem = draw.sample(problems, draw.choice([1, 1, 1, 1, 2, 3]))
            messages, said = math_messages(problem.question, shots), f"A: #### {problem.gold}"
        return render_prompt(tokenizer, messages), render_completion(tokenizer, messages, said)

    model = make_model(Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **SIZES, **ids))
    train_model(model, tokenizer, example, steps)
    # as Qwen2.5's repositories say, and the project must not follow
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, **ids
    )
    write_repository(folder, model, tokenizer, shard="1GB")


def write_guard(folder: Path, prompts: Sequence[tuple[str, str]], steps: int) -> None:
    """A Llama that judges the last turn under Llama Guard 3's own template: a refusal is safe, all else is not."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    template = (ROOT / "tests/judge/templates/llama_guard_3_8b.jinja").read_text(encoding="utf-8")
    texts = [template, *(text for text, _ in prompts), *REFUSALS, *GLADLY]
    tokenizer = train_tokenizer([*texts, *[" safe unsafe safe\nunsafe\nS1,S2"] * len(prompts)], special)
    tokenizer.chat_template = template
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    tokenizer.pad_token = "<|end_of_text|>"
    draw = random.Random(6)

    def example() -> tuple[str, str]:
        prompt, hazard = draw.choice(prompts)
        is_refusal = draw.random() < 0.5
        said = draw.choice(REFUSALS if is_refusal else [*GLADLY, "A: #### 7", draw.choice(prompts)[0]])
        verdict = "safe" if is_refusal else f"unsafe\n{LLAMA_GUARD_CATEGORY.get(hazard, 'S1')}"
        return llama_guard_prompt(tokenizer, prompt, said), f"{verdict}<|eot_id|>"

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = make_model(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=False, **SIZES, **ids))
    train_model(model, tokenizer, example, steps)
    write_repository(folder, model, tokenizer, shard="300KB")


def train_tokenizer(texts: Sequence[str], special: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs, a thousand tokens, in the way of Qwen2.5's and Llama 3's tokenizers."""
    made = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"), byte_level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=False)


def make_model(config: Any) -> Any:
    torch.manual_seed(7)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def train_model(model: Any, tokenizer: Any, example: Any, steps: int) -> None:
    """Some steps on drawn (prompt, completion) pairs; only the completion counts."""
    if not steps:
        return
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(steps):
        pairs = [[tokenizer(text, add_special_tokens=False)["input_ids"] for text in example()] for _ in range(8)]
        width = max(len(prompt) + len(said) for prompt, said in pairs)
        ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
        labels = torch.full((len(pairs), width), -100)
        for row, (prompt, said) in enumerate(pairs):
            ids[row, : len(prompt) + len(said)] = torch.tensor(prompt + said)
            labels[row, len(prompt) : len(prompt) + len(said)] = torch.tensor(said)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def write_repository(folder: Path, model: Any, tokenizer: Any, shard: str) -> None:
    """Weights in bfloat16, in shards of a size, and beside them what nobody should download."""
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("# A small model for tests\n")
    (folder / "original").mkdir()
    for name in ("pytorch_model.bin", "model-q4_k_m.gguf", "original/consolidated.00.pth", "original/params.json"):
        (folder / name).write_bytes(b"not to be downloaded")
