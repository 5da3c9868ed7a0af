"""A request to a server and its answer; what may pass is tried again, with longer and longer pauses."""

import asyncio
import json
import sys
from typing import Any

import aiohttp
from tqdm import tqdm

from stages.lib.base.errors import BadInput, short
from stages.lib.base.serving import headers

TRIES, PAUSE, LONGEST_PAUSE = 6, 2.0, 30.0  # seconds before the second try, twice as many before each one after it
PASSING = (408, 429)  # and 5xx: what may be otherwise a moment later


def connection(seconds: float) -> aiohttp.ClientSession:
    """To send requests by, each given so many seconds."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0), headers=headers())


async def exchange(
    session: aiohttp.ClientSession, method: str, url: str, label: str, body: Any = None, said: set[str] | None = None
) -> tuple[int, Any]:
    """Status and answer (None if it is no JSON). What may pass is tried again; the last time it is a BadInput.

    `said`: what was said of it on stderr already, by this request or another.
    """
    said = set() if said is None else said
    for tried in range(1, TRIES + 1):
        try:
            async with session.request(method, url, json=body) as answer:
                text = await answer.text(errors="replace")
            said_back = _json(text)
            if answer.status < 500 and answer.status not in PASSING and not _aborted(said_back):
                return answer.status, said_back
            fault = f"answers {refusal(answer.status, said_back)}"
        except TimeoutError:
            fault = f"gave no answer within {session.timeout.total:g} s"
        except (aiohttp.ClientError, OSError) as error:
            fault = f"cannot be reached, or went away: {error or type(error).__name__}"
        if tried < TRIES:
            pause = min(PAUSE * 2 ** (tried - 1), LONGEST_PAUSE)
            word = f"{label}: the server {fault}; trying again ({tried} of {TRIES})"
            if word not in said:
                said.add(word)
                tqdm.write(word, file=sys.stderr)
            await asyncio.sleep(pause)
    raise BadInput(
        f"{label}: the server at {url.partition('/v1')[0]} {fault}, {TRIES} times. What it answered before is kept: "
        "start it again, and the same command goes on from there"
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _aborted(answer: Any) -> bool:
    """Whether a server that is being stopped let go of a request that it had begun to answer (vLLM)."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") == "abort" for c in choices)


def refusal(status: int, answer: Any) -> str:
    """A status and what was said with it, in a line."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    words = (error.get("message") if isinstance(error, dict) else error) or "nothing more"
    return f"{status}, {short(words)}"
