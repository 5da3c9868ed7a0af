"""Which server answers as which model: found by its own list, and base and tuned told apart, before anything is asked.

Proven is what the server itself says and does: it lists the model under the name that params give it; the tuned one's
name has the hash of models/tuned; where it says so (vLLM), the tuned one is an adapter on the model of params, and the
files that it was read from, if they lie here, are those of models/tuned; and the two give the first tokens of the same
prompts other probabilities. That the weights behind the base model's name are those of params is its word: none are
loaded here.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput, short
from stages.lib.base.sections import Machine
from stages.lib.base.serving import address, tuned_id
from stages.lib.generate.engine import ends_of
from stages.lib.generate.exchange import connection, exchange, refusal
from stages.lib.generate.server import Server, first_scores
from stages.lib.model.models import SubjectFiles
from stages.lib.model.provenance import tuning
from stages.lib.model.sources import Source

# where a server says its version, and under which key: vLLM; SGLang; llama.cpp; TGI, as each documents it
VERSIONS = (("/version", "version"), ("/server_info", "version"), ("/props", "build_info"), ("/info", "version"))
PROBES = 4  # prompts by which two models are told apart
Card = Mapping[str, Any]


def connect(role: str, name: str, source: Source, tokenizer: Any, machine: Machine, keep: Path | None) -> Server:
    """The server that answers as the model `name`, whose files are in `source`. Raises BadInput where none does."""
    where = address(role)
    engine, cards = asyncio.run(_look(where, machine.request_seconds))
    card = _card(cards, name, where)
    if role != "tuned" and card.get("parent"):
        raise BadInput(f"{where}: {name} is an adapter on {short(card['parent'])} there; expected the model itself")
    context = card.get("max_model_len") or next(
        (other["max_model_len"] for other in cards.values() if other.get("max_model_len")), None
    )
    return Server(
        address=where,
        model=name,
        engine=engine,
        tokenizer=tokenizer,
        ends=sorted(ends_of(_own_ends(source), tokenizer)),
        context=context,
        requests=machine.requests,
        seconds=machine.request_seconds,
        keep=keep,
    )


def connect_tuned(files: SubjectFiles, name: str, folder: Path, machine: Machine, tokenizer: Any, keep: Path) -> Server:
    """The server that answers as what `folder` holds, an adapter on the model `name` or whole weights."""
    own = tuning(folder)
    server = connect("tuned", tuned_id(own or ""), files.weights, tokenizer, machine, keep)
    if not files.adapter:
        return server
    _, cards = asyncio.run(_look(server.address, machine.request_seconds))
    card = cards[server.model]
    parent = card.get("parent")
    if parent and parent != name:
        raise BadInput(
            f"{server.address}: {server.model} is an adapter on {short(parent)} there, but params.yaml has it on {name}"
        )
    root = card.get("root")
    if root and parent and Path(root).is_dir() and tuning(Path(root)) != own:
        raise BadInput(
            f"{server.address}: {server.model} is read from {root} there, whose files are not those of {folder}; start "
            "the server again with what is there now"
        )
    return server


def check_apart(tuned: Server, files: SubjectFiles, name: str, prompts: Sequence[str]) -> None:
    """Refuse a server whose tuned model answers as the untuned one, called `name`, does.

    Each is asked for its first token's probabilities several times: they must differ by more than a model does from
    itself, because requests that are computed together change last bits.
    """
    if files.adapter and not _does_something(files.adapter):
        return
    where = tuned.address if files.adapter else address("base")
    _card(asyncio.run(_look(where, tuned.seconds))[1], name, where)
    asked = prompts[:PROBES]
    both = (replace(tuned, address=where, model=name), tuned)
    first_scores(both[0], asked, "first tokens")  # later ones find the prompts in the server's cache
    first_scores(both[1], asked, "first tokens")
    untuned, tuning_ = ([first_scores(each, asked, "first tokens") for _ in range(2)] for each in both)
    noise = max(_distance(*untuned), _distance(*tuning_))
    if _distance(untuned[0], tuning_[0]) <= noise:
        raise BadInput(
            f"{tuned.address}: {tuned.model} and {name} answer alike: the first tokens of {len(asked)} prompts have "
            f"the same probabilities, up to {noise:.2g} nats by which each differs from itself. Is the adapter on? "
            "(vLLM: --enable-lora --lora-modules NAME=FOLDER)"
        )


def _distance(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> float:
    """The largest difference of a first token's log-probabilities; infinite where none is in both."""
    apart = [
        max((abs(a[token] - b[token]) for token in a.keys() & b.keys()), default=math.inf)
        for a, b in zip(one, other, strict=True)
    ]
    return max(apart)


def _does_something(adapter: Path) -> bool:
    """Whether an adapter adds anything: where training did not reach it (lora.dropout 1) all B are zero still."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", "pt") as tensors:
        return any("lora_A" not in name and tensors.get_tensor(name).any() for name in tensors.keys())  # noqa: SIM118


def _own_ends(source: Source) -> int | list[int] | None:
    """The tokens that end a turn by the model's own settings."""
    from transformers import AutoConfig, GenerationConfig

    if (Path(source.path) / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(source.path).eos_token_id
    return getattr(AutoConfig.from_pretrained(source.path, **source.options()), "eos_token_id", None)


def _card(cards: Mapping[str, Card], name: str, where: str) -> Card:
    """What the server says of the model of this name."""
    if name not in cards:
        hint = ""
        if name.startswith("tuned-"):
            hint = "; the tuned model's name has the hash of what is in models/tuned now"
        raise BadInput(
            f"{where}: no model {name} there, found {', '.join(map(short, cards)) or 'none'}{hint}. `python -m "
            "tools.serve --show` prints how vLLM is started with the right names"
        )
    return cards[name]


async def _look(where: str, seconds: float) -> tuple[str, dict[str, Card]]:
    """The server's name and version, and its models by id."""
    async with connection(seconds) as session:
        status, answer = await exchange(session, "GET", f"{where}/v1/models", "models")
        try:
            if status != 200:
                raise BadInput(f"{where}/v1/models: the server refuses: {refusal(status, answer)}")
            cards = {card["id"]: card for card in answer["data"]}
        except (LookupError, TypeError):
            raise BadInput(
                f"{where}/v1/models: found {short(answer)}; expected a list of models, as vLLM gives"
            ) from None
        maker = next((card["owned_by"] for card in cards.values() if card.get("owned_by")), "unnamed")
        for path, key in VERSIONS:
            status, answer = await exchange(session, "GET", f"{where}{path}", "version")
            if status == 200 and isinstance(answer, dict) and answer.get(key):
                return f"{maker} {answer[key]}", cards
    return f"{maker} of a version that it does not say", cards
