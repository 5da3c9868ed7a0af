"""The base and the tuned model answer the same prompts: load one, let it answer, write its answers and their cost."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from stages.lib.chat import Message, render_prompt
from stages.lib.cost import write_cost
from stages.lib.engine import greedy
from stages.lib.models import load_subject, own_files
from stages.lib.params import GenMath, GenSafety, Model
from stages.lib.records import Answer, sha256_text, write_jsonl
from stages.lib.unfinished import unfinished


def write_answers(
    stage: str,
    subject: str,
    params: Mapping[str, BaseModel],
    inputs: Sequence[Path],
    model: Model,
    settings: GenMath | GenSafety,
    ids: Sequence[str],
    conversations: Sequence[list[Message]],
    path: Path,
) -> None:
    """Answer one conversation per id greedily and write `path`, an Answer a line, and the stage's cost.

    `params` and `inputs` are what, with the model, decides the answers (see unfinished.py).
    """
    name, folder = f"{stage}-{subject}", Path("models") / subject
    with unfinished(name, params, [*inputs, folder, *own_files(model.name)]) as keep:
        loaded, tokenizer = load_subject(model, folder, tuned=subject == "tuned")
        prompts = [render_prompt(tokenizer, messages) for messages in conversations]
        start = time.perf_counter()
        written = greedy(loaded, tokenizer, prompts, settings.max_new_tokens, settings.batch_size, name, keep)
        seconds = time.perf_counter() - start
        answers = [
            Answer(id=row, prompt_sha256=sha256_text(prompt), text=g.text, finish=g.finish, tokens=g.tokens)
            for row, prompt, g in zip(ids, prompts, written, strict=True)
        ]
        write_jsonl(path, answers)
        tokens = sum(answer.tokens for answer in answers)
        write_cost(name, seconds, len(answers), tokens)
    print(f"{name}: {len(answers)} prompts, {tokens} tokens, {seconds:.0f} s ({tokens / seconds:.0f} tokens/s)")
