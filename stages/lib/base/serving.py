"""A server that answers in place of our engine (generate.engine: server): where it is, and what it calls the models.

The address is this machine's affair, so it stands in the environment, not in params.yaml:

AFTERTUNE_SERVER        http://host:8000, a server that speaks the OpenAI-compatible completions interface
AFTERTUNE_SERVER_JUDGE  that of the safeguard model, where it is another one; so AFTERTUNE_SERVER_BASE and _TUNED
AFTERTUNE_SERVER_KEY    what it wants as its API key, if anything

The untuned model and the judge are called there as in params.yaml. The tuned one carries the hash of its weights, so
that a server which still has those of an earlier training is found out: `tuned-1a2b3c4d`. So does tools/serve.py.
"""

import os
from urllib.parse import urlsplit

from stages.lib.base.errors import BadInput

ADDRESS = "AFTERTUNE_SERVER"


def address(role: str) -> str:
    """Where the server for `base`, `tuned` or `judge` is, without /v1. Raises BadInput where that is not said."""
    own = f"{ADDRESS}_{role.upper()}"
    name = own if os.environ.get(own) else ADDRESS
    found = os.environ.get(name, "").strip().rstrip("/").removesuffix("/v1").rstrip("/")
    if not found:
        raise BadInput(
            f"generate.engine is server, but {ADDRESS} is not set: expected its address, as in "
            f"{ADDRESS}=http://127.0.0.1:8000. `python -m tools.serve` starts one; generate.engine=own asks none"
        )
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{name}: found {found!r}; expected an address such as http://127.0.0.1:8000")
    if parts.username or parts.password or parts.query:
        raise BadInput(f"{name}: a key in the address would be shown in messages; set {ADDRESS}_KEY instead")
    return found


def headers() -> dict[str, str]:
    """What each request carries beside its body."""
    key = os.environ.get(f"{ADDRESS}_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def tuned_id(tuning: str) -> str:
    """What the tuned model is called there; `tuning`: the sha256 over its weights."""
    return f"tuned-{tuning[:8]}"
