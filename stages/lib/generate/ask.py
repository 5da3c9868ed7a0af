"""Many prompts in, texts out, whoever answers: our engine (engine.py) or a server (server.py)."""

from collections.abc import Sequence

from stages.lib.base.made import Made, by_server
from stages.lib.generate import engine, server
from stages.lib.generate.engine import Engine, Generation
from stages.lib.generate.server import Server


def greedy(
    asked: Engine | Server, prompts: Sequence[str], max_new_tokens: int, label: str, end_repetition: bool = False
) -> list[Generation]:
    """Continue each rendered prompt greedily (engine.greedy)."""
    by = server if isinstance(asked, Server) else engine
    return by.greedy(asked, prompts, max_new_tokens, label, end_repetition)


def next_token(
    asked: Engine | Server, prompts: Sequence[str], candidates: Sequence[int], label: str
) -> list[tuple[int, list[float]]]:
    """The most probable next token, and the log-probabilities of `candidates` (engine.next_token)."""
    by = server if isinstance(asked, Server) else engine
    return by.next_token(asked, prompts, candidates, label)


def made_by(asked: Engine | Server, made: Made) -> Made:
    """How answers are made that this engine, or that server, gives."""
    if isinstance(asked, Server):
        return by_server(made, asked.engine, asked.model)
    return made
