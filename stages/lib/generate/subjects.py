"""The base and the tuned model answer the same prompts: load one, let it answer, write its answers and their cost."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stages.lib.base.cost import write_cost
from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.lib.base.made import ENGINE, Made, write_made
from stages.lib.base.measured import generated, weights
from stages.lib.base.params import Params
from stages.lib.base.processes import is_first
from stages.lib.base.rows import Answer, write_jsonl
from stages.lib.base.sections import Generation, Model, started_from
from stages.lib.generate.ask import greedy, made_by, next_token
from stages.lib.generate.connect import check_apart, connect, connect_tuned
from stages.lib.generate.engine import Engine
from stages.lib.generate.engine import Generation as Written
from stages.lib.generate.moved import divergences
from stages.lib.generate.server import Server
from stages.lib.model.device import free_memory
from stages.lib.model.models import has_biases, load_subject, subject_files
from stages.lib.model.opening import Task, work_on
from stages.lib.model.provenance import how_made
from stages.lib.model.sources import load_chat_tokenizer
from stages.lib.model.tokens import check_same_tokens
from stages.lib.prompts.chat import SAMPLE, Message, render_prompt, turn_end
from stages.lib.prompts.own import LETTERS, first_tokens
from stages.lib.prompts.thinking import opened


@dataclass(frozen=True)
class Asked:
    """Conversations by id that are answered together, apart from other sets, so that one more set changes no answer to
    the others. `set`: a reader's own, or nothing; `choices`: how many letters each of them has to choose from, 0: none,
    it is answered in words."""

    set: str
    turns: Sequence[tuple[str, list[Message]]]
    choices: Sequence[int] = ()


def write_answers(
    task: Task,
    subject: str,
    asked: Sequence[Asked],
    params: Params,
    settings: Generation,
    file: str,
    untuned: Mapping[str, Answer] | None = None,
) -> None:
    """Answer every conversation greedily; write data/generated/<subject>/`file`, an Answer a line, and the stage's
    cost. Both subjects must take text for the same tokens (BadInput). On the `untuned` model's answers, by id, each
    answer of a tuned one says how far it has moved (moved.py)."""
    model = started_from(subject, params.model, params.base)
    check_same_tokens(model, params.model)
    folder = weights(subject)
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: no such folder; {'run the finetune stage first' if subject == 'tuned' else 'see git'}"
        )
    with work_on(task) as keep:
        turns = [turn for each in asked for turn in each.turns]
        if params.generate.engine == "server":
            engine, prompts = _served(subject, model, params, [messages for _, messages in turns], keep)
        else:
            loaded = load_subject(model, folder, subject == "tuned", params.lora.strength)
            engine = Engine(*loaded, settings.batch_size, keep)
            prompts = [render_prompt(engine.tokenizer, messages) for _, messages in turns]
        start = time.perf_counter()
        letters = first_tokens(engine.tokenizer, max(max(each.choices, default=0) for each in asked))
        rest, written = iter(prompts), []
        for each in asked:
            shown = list(islice(rest, len(each.turns)))
            written += _answered(engine, each, shown, letters, settings, f"{task.name} {each.set}".strip())
        moved = _moved(engine, params, turns, prompts, untuned) if untuned else {}
        seconds = time.perf_counter() - start
        if not is_first():
            return
        answers = [
            Answer(
                id=row,
                prompt_sha256=sha256_text(prompt),
                text=opened(prompt) + g.text,
                finish=g.finish,
                tokens=g.tokens,
                divergence=moved.get(row),
            )
            for (row, _), prompt, g in zip(turns, prompts, written, strict=True)
        ]
        write_made(generated(subject) / file, made_by(engine, subject_made(model, folder, engine.tokenizer)))
        write_jsonl(generated(subject) / file, answers)
        tokens = sum(answer.tokens for answer in answers)
        write_cost(task.name, seconds, len(answers), tokens)
    print(f"{task.name}: {len(answers)} prompts, {tokens} tokens, {seconds:.0f} s ({tokens / seconds:.0f} tokens/s)")


def _served(
    subject: str, model: Model, params: Params, turns: Sequence[list[Message]], keep: Path | None
) -> tuple[Server, list[str]]:
    """The server that answers for a subject, whose files are only looked at, and the rendered conversations."""
    folder = weights(subject)
    files = subject_files(model, folder, subject == "tuned")
    tokenizer = load_chat_tokenizer(files.base)
    prompts = [render_prompt(tokenizer, messages) for messages in turns]
    if subject == "base":
        return connect("base", model.name, files.weights, tokenizer, params.machine, keep), prompts
    server = connect_tuned(files, model.name, folder, params.machine, tokenizer, keep)
    untuned = model.name if files.adapter else started_from("base", params.model, params.base).name
    check_apart(server, files, untuned, prompts)
    return server, prompts


def _answered(
    engine: Engine | Server,
    asked: Asked,
    prompts: Sequence[str],
    letters: Sequence[int],
    settings: Generation,
    label: str,
) -> list[Written]:
    """The answers to the conversations of a set, in words, or the most probable letter of each one's choices.
    `letters`: the tokens of the first so many."""
    if not any(asked.choices):
        return greedy(engine, prompts, settings.max_new_tokens, label, settings.end_repetition)
    scores = next_token(engine, prompts, letters, label)
    chosen = [max(range(count), key=of.__getitem__) for count, (_, of) in zip(asked.choices, scores, strict=True)]
    return [Written(LETTERS[choice], "stop", 1) for choice in chosen]


def _moved(
    engine: Engine | Server,
    params: Params,
    turns: Sequence[tuple[str, list[Message]]],
    prompts: Sequence[str],
    untuned: Mapping[str, Answer],
) -> dict[str, float | None]:
    """The divergence on each of the untuned model's answers, by id."""
    if isinstance(engine, Server):
        print(
            "a server gives no whole distributions: how far the tuned model has moved is not measured", file=sys.stderr
        )
        return {}
    tokenizer, texts = engine.tokenizer, {}
    for (row, _), prompt in zip(turns, prompts, strict=True):
        if answer := untuned.get(row):
            said = answer.text.removeprefix(opened(prompt))
            shown, written = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, said))
            end = turn_end(tokenizer) if answer.finish == "stop" else None
            texts[row] = (shown, written + ([] if end is None else [end]))
    untuned_model = None  # the tuned one with its adapter off
    if params.base.model or not hasattr(engine.model, "peft_config") or has_biases(engine.model):
        if engine.model.get_memory_footprint() > free_memory(engine.model.device):
            said = "memory does not hold the untuned model beside the tuned one: how far it has moved is not measured"
            print(said, file=sys.stderr)
            return {}
        before = started_from("base", params.model, params.base)
        untuned_model = load_subject(before, weights("base"), tuned=False)[0]
    found = divergences(engine.model, untuned_model, list(texts.values()), engine.keep)
    return dict(zip(texts, found, strict=True))


def subject_made(model: Model, folder: Path, tokenizer: Any) -> Made:
    """How the answers of the model of params are made, tuned by what `folder` holds, if anything."""
    return how_made(
        name=model.name,
        revision=model.revision,
        quantization=model.quantization,
        dtype=model.dtype,
        tokenizer=tokenizer,
        rendered=render_prompt(tokenizer, SAMPLE),
        engine=ENGINE,
        put_on=folder,
    )
