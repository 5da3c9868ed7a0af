"""The base and the tuned model answer the same prompts: load one, let it answer, write its answers and their cost."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.cost import write_cost
from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.lib.base.processes import is_first
from stages.lib.base.rows import Answer, write_jsonl
from stages.lib.base.unfinished import unfinished
from stages.lib.generate.engine import greedy
from stages.lib.model.models import load_subject, own_files
from stages.lib.prompts.chat import Message, render_prompt


def write_answers(
    stage: str,
    subject: str,
    params: Mapping[str, Any],
    inputs: Sequence[Path],
    ids: Sequence[str],
    conversations: Sequence[list[Message]],
    path: Path,
) -> None:
    """Answer one conversation per id greedily and write `path`, an Answer a line, and the stage's cost.

    `params` (sections by name: `model`, the stage's own and whatever else it reads) and `inputs` are what decides the
    answers, with the files of the model (see unfinished.py).
    """
    model, settings = params["model"], params[stage]
    name, folder = f"{stage}-{subject}", Path("models") / subject
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: no such folder; {'run the finetune stage first' if subject == 'tuned' else 'see git'}"
        )
    with unfinished(name, params, [*inputs, folder, *own_files(model.name)]) as keep:
        loaded, tokenizer = load_subject(model, folder, tuned=subject == "tuned")
        prompts = [render_prompt(tokenizer, messages) for messages in conversations]
        start = time.perf_counter()
        limit, repetition = settings.max_new_tokens, settings.end_repetition
        written = greedy(loaded, tokenizer, prompts, limit, settings.batch_size, name, keep, repetition)
        seconds = time.perf_counter() - start
        if not is_first():
            return
        answers = [
            Answer(id=row, prompt_sha256=sha256_text(prompt), text=g.text, finish=g.finish, tokens=g.tokens)
            for row, prompt, g in zip(ids, prompts, written, strict=True)
        ]
        write_jsonl(path, answers)
        tokens = sum(answer.tokens for answer in answers)
        write_cost(name, seconds, len(answers), tokens)
    print(f"{name}: {len(answers)} prompts, {tokens} tokens, {seconds:.0f} s ({tokens / seconds:.0f} tokens/s)")
