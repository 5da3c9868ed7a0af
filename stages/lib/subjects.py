"""The base and the tuned model answer the same prompts: load one, let it answer, write its answers and their cost."""

import time
from collections.abc import Sequence
from pathlib import Path

from stages.lib.chat import Message, render_prompt
from stages.lib.cost import write_cost
from stages.lib.engine import greedy
from stages.lib.models import load_subject
from stages.lib.params import GenMath, GenSafety, Model
from stages.lib.records import Answer, sha256_text, write_jsonl


def write_answers(
    stage: str,
    subject: str,
    model: Model,
    settings: GenMath | GenSafety,
    ids: Sequence[str],
    conversations: Sequence[list[Message]],
    path: Path,
) -> None:
    """Answer one conversation per id greedily and write `path`, an Answer a line, and the stage's cost."""
    loaded, tokenizer = load_subject(model, Path("models") / subject, tuned=subject == "tuned")
    prompts = [render_prompt(tokenizer, messages) for messages in conversations]
    name = f"{stage}-{subject}"
    start = time.perf_counter()
    written = greedy(loaded, tokenizer, prompts, settings.max_new_tokens, settings.batch_size, name)
    seconds = time.perf_counter() - start
    answers = [
        Answer(id=row, prompt_sha256=sha256_text(prompt), text=g.text, finish=g.finish, tokens=g.tokens)
        for row, prompt, g in zip(ids, prompts, written, strict=True)
    ]
    write_jsonl(path, answers)
    tokens = sum(answer.tokens for answer in answers)
    write_cost(name, seconds, len(answers), tokens)
    print(f"{name}: {len(answers)} prompts, {tokens} tokens, {seconds:.0f} s ({tokens / seconds:.0f} tokens/s)")
