"""Many prompts in, texts out, by a server that speaks the OpenAI-compatible completions interface (vLLM and its like).

For the stages in place of engine.py, with the same functions: `greedy` and `next_token`. A prompt is sent as its tokens
and decoded greedily; what vLLM takes from the model's own generation settings (Qwen2.5's penalize repetition) is set to
nothing. Many requests are under way at once, and the server batches them as it likes. What fails for a reason that may
pass (no connection, no answer in time, a status of 5xx) is sent again; what was answered is kept at once, one file a
prompt, so that a killed stage loses only what was under way.

Of every answer it is checked that it is of the model that was asked, to a prompt of as many tokens as were sent, and
not cut short. A text that repeats itself is ended where engine.py would, after it has come: the server does not know.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.files import sha256_text
from stages.lib.base.processes import count, gathered, index
from stages.lib.base.unfinished import read_part, write_part
from stages.lib.generate.engine import Generation, progress
from stages.lib.generate.exchange import connection, exchange, refusal
from stages.lib.generate.repetition import EVERY, is_repetitive, number_tokens

# with vLLM's defaults for what the model's own generation settings would decide
GREEDY = {"temperature": 0, "top_p": 1, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
TOP = 20  # log-probabilities that any vLLM gives


@dataclass(frozen=True)
class Server:
    """What travels together: a model that a server answers as, and how it is asked.

    `model`: its id there; `engine`: the server's name and version; `ends`: tokens that end a turn; `context`: the most
    tokens of prompt and answer together, if it says so; `requests` at a time, each given so many `seconds`.
    """

    address: str
    model: str
    engine: str
    tokenizer: Any
    ends: Sequence[int]
    context: int | None
    requests: int
    seconds: float
    keep: Path | None = None


def greedy(
    server: Server, prompts: Sequence[str], max_new_tokens: int, label: str, end_repetition: bool = False
) -> list[Generation]:
    """As engine.py's: continue each rendered prompt up to the end of its turn, in the order given."""
    numbers = number_tokens(server.tokenizer) if end_repetition else None

    def read(choice: Mapping[str, Any], used: Mapping[str, int]) -> list:
        return _text(server, choice, used, max_new_tokens, numbers)

    wanted = {"max_tokens": max_new_tokens, "stop_token_ids": sorted(server.ends), "return_token_ids": True}
    found = _each(server, prompts, wanted, read, label, max_new_tokens, [end_repetition])
    return [Generation(*each) for each in found]


def next_token(
    server: Server, prompts: Sequence[str], candidates: Sequence[int], label: str
) -> list[tuple[int, list[float]]]:
    """As engine.py's: for each rendered prompt the most probable next token (-1: one that has no number in the answer),
    and the log-probabilities of `candidates`. Raises BadInput where the server does not give those."""
    names = {token: (f"token_id:{token}", server.tokenizer.decode([token])) for token in candidates}

    def read(choice: Mapping[str, Any], _used: Mapping[str, int]) -> list:
        best, scores = first_token(choice)
        values = [next((scores[name] for name in names[token] if name in scores), None) for token in candidates]
        if None in values:
            raise BadInput(
                f"{label}: the server gives no log-probability of {names[candidates[values.index(None)]][1]!r} as the "
                "first token; expected those of `logprob_token_ids`, as vLLM documents them"
            )
        said = next((token for token in candidates if best in names[token]), None)
        number = best.removeprefix("token_id:")
        return [said if said is not None else int(number) if number.isdigit() else -1, values]

    wanted = {"logprobs": max(TOP, len(candidates)), "logprob_token_ids": list(candidates)}
    found = _each(server, prompts, _ONE | wanted, read, label, 1, [])
    return [(best, values) for best, values in found]


def first_scores(server: Server, prompts: Sequence[str], label: str) -> list[dict[str, float]]:
    """For each rendered prompt the log-probabilities of the most probable first tokens, by their names there."""
    asked = {"logprobs": TOP}
    return _each(server, prompts, _ONE | asked, lambda choice, _used: first_token(choice)[1], label, 1, None)


_ONE = {"max_tokens": 1, "return_tokens_as_token_ids": True}


def first_token(choice: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The first token of an answer and the log-probabilities there, by the names that the server gives tokens."""
    said = choice["logprobs"]
    return said["tokens"][0], {name: float(value) for name, value in said["top_logprobs"][0].items()}


def _text(
    server: Server, choice: Mapping[str, Any], used: Mapping[str, int], limit: int, numbers: frozenset[int] | None
) -> list:
    """[text, finish, tokens] of an answer, ended where it repeats itself if it is given `numbers`."""
    stopped, tokens = choice["finish_reason"] == "stop", choice.get("token_ids")
    if not stopped and used["completion_tokens"] < limit:
        raise BadInput(
            f"{server.model}: the server cut an answer off at {used['completion_tokens']} tokens, {limit} were asked "
            "for; start it with room for them (vLLM: --max-model-len)"
        )
    counted = tokens is not None
    if not counted:  # by another server than vLLM
        tokens = server.tokenizer(choice["text"], add_special_tokens=False)["input_ids"]
    looks = range(EVERY, len(tokens), EVERY) if numbers is not None else ()
    end = next((place for place in looks if is_repetitive(tokens[:place], numbers)), None)
    if end is None and not counted:
        return [choice["text"], "stop" if stopped else "length", used["completion_tokens"]]
    new = tokens[:end]
    said = new[:-1] if end is None and stopped and new and new[-1] in server.ends else new
    text = server.tokenizer.decode(said, skip_special_tokens=True)
    return [text, "repetition" if end else "stop" if stopped else "length", len(new)]


def _each(
    server: Server,
    prompts: Sequence[str],
    wanted: Mapping[str, Any],
    read: Callable[[Mapping[str, Any], Mapping[str, int]], Any],
    label: str,
    limit: int,
    kept_by: list | None,
) -> list[Any]:
    """What `read` makes of the answer to each prompt, given its choice and usage; taken from `keep` where it is there,
    unless `kept_by` is None."""
    if not prompts:
        return []
    ids = server.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    longest = max(map(len, ids)) + limit
    if server.context and longest > server.context:
        raise BadInput(
            f"{label}: a prompt with {limit} new tokens takes {longest}, but the server holds {server.context}; start "
            f"it with room for them (vLLM: --max-model-len {longest})"
        )
    bodies = [{"model": server.model, "prompt": row, **GREEDY, **wanted} for row in ids]
    names = [sha256_text(json.dumps([server.engine, body, kept_by])) for body in bodies]
    keep = None if kept_by is None else server.keep
    order = sorted(range(len(ids)), key=lambda prompt: -len(ids[prompt]))[index() :: count()]  # longest first
    results = {prompt: read_part(keep, names[prompt]) for prompt in order}
    with progress(label, len(order)) as bar:
        bar.update(sum(result is not None for result in results.values()))
        left = [prompt for prompt in order if results[prompt] is None]

        def done(prompt: int, said: Mapping[str, Any]) -> None:
            results[prompt] = _checked(server, said, len(ids[prompt]), read, label)
            write_part(keep, names[prompt], results[prompt])
            bar.update(1)

        asyncio.run(_ask(server, {prompt: bodies[prompt] for prompt in left}, done, label))
    results = gathered(results)
    return [results[prompt] for prompt in range(len(ids))]


def _checked(server: Server, said: Any, sent: int, read: Callable, label: str) -> Any:
    """What `read` makes of an answer that is one to what was asked (else BadInput)."""
    try:
        (choice,), used, model = said["choices"], said["usage"], said.get("model") or server.model
        if model != server.model:
            raise BadInput(f"{label}: {server.model} was asked, but the server answered as {model}")
        if used["prompt_tokens"] != sent:
            raise BadInput(
                f"{label}: the server read {used['prompt_tokens']} tokens where {sent} were sent; it must take a "
                "prompt as it is, with nothing before it and nothing cut off"
            )
        return read(choice, used)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{label}: the server's answer is in another form than completions have: {error!r}") from None


async def _ask(server: Server, bodies: Mapping[int, dict], done: Callable[[int, Any], None], label: str) -> None:
    """Send all bodies, so many at a time, and call `done` with each answer as it comes. The first error ends it."""
    waiting, said = iter(bodies.items()), set()
    url = f"{server.address}/v1/completions"

    async def work() -> None:
        for prompt, body in waiting:
            status, answer = await exchange(session, "POST", url, label, body, said)
            if status != 200:
                raise BadInput(f"{label}: the server at {server.address} refuses: {refusal(status, answer)}")
            done(prompt, answer)
            said.clear()

    try:
        async with connection(server.seconds) as session, asyncio.TaskGroup() as group:
            for _ in range(min(server.requests, len(bodies))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
