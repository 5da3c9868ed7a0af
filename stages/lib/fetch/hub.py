"""Models and data sets of the hub: out of its cache, else downloaded whole first; whatever goes wrong is one message.

What is whole in the cache is read from there: no connection is opened, not even to ask for news. Only the files that
are read are downloaded: settings, tokenizer and safetensors of a model, no pickles and no other formats. The hub's own
client does it, and takes these variables:

HF_ENDPOINT              another hub than https://huggingface.co, or a mirror of it
HF_HOME, HF_HUB_CACHE    where the cache is
HF_TOKEN                 who asks, where `hf auth login` is not at hand
HF_HUB_OFFLINE           1: never ask the hub
HF_HUB_ETAG_TIMEOUT      seconds that the hub may take to answer [10]
HF_HUB_DOWNLOAD_TIMEOUT  seconds without a byte of a file, before it is asked for again, five times over [5]
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text
from stages.lib.base.processes import is_first

# The client reads these when it is imported. Its own 10 s make a minute of a hub that falls silent in a file; and with
# telemetry it tells the hub by which tools it is run, after asking for a list of them.
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "5")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
MODEL_FILES = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "model*.safetensors")  # by name, not in folders
TUNED_FILES = (*MODEL_FILES, "adapter_model.safetensors")
PROBED = {"model": "config.json", "dataset": "README.md"}  # a small file that every repository of a kind should have


def model_folder(name: str, revision: str | None) -> Path:
    """The folder with a model of the hub. Raises BadInput if it cannot be had."""
    if folder := _cached("model", name, revision, MODEL_FILES, _is_whole_model):
        return folder
    folder = _download("model", name, revision, MODEL_FILES)
    if not _is_whole_model(folder):
        raise BadInput(
            f"{name} at {revision}: it lacks config.json, a tokenizer or model.safetensors; other weight formats "
            "(pickles) are not loaded"
        )
    return folder


def tuned_folder(name: str, revision: str | None) -> Path:
    """The folder with an adapter or a whole model of the hub. Raises BadInput if it cannot be had."""

    def is_whole(folder: Path) -> bool:
        adapter = (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file()
        return adapter or _is_whole_model(folder)

    cached = _cached("model", name, revision, TUNED_FILES, is_whole)
    if cached and (cached / "tokenizer_config.json").is_file():
        return cached
    try:  # other tools fetch an adapter without what lies beside it: its tokenizer, of which its template is read
        folder = _download("model", name, revision, TUNED_FILES)
    except BadInput:
        if not cached:
            raise
        return cached
    if not is_whole(folder):
        raise BadInput(
            f"{name} at {revision}: neither an adapter (adapter_config.json and adapter_model.safetensors) nor a whole "
            "model is there; other weight formats (pickles) are not loaded"
        )
    return folder


def latest(name: str) -> str:
    """The commit that a model's main branch is at now. Raises BadInput if the hub does not say."""
    from huggingface_hub import HfApi, constants

    with _said_in_one_message("model", name, "main"):
        return HfApi().model_info(name, revision="main", timeout=constants.HF_HUB_ETAG_TIMEOUT).sha


def check_model(name: str, revision: str | None) -> None:
    """Ask the hub for a model that is not in the cache, without downloading it. Raises BadInput if it cannot be had."""
    if not _cached("model", name, revision, MODEL_FILES, _is_whole_model):
        with _said_in_one_message("model", name, revision):
            _probe("model", name, revision)


def data_files(name: str, revision: str | None, pattern: str) -> list[Path]:
    """The files of a data set of the hub that match a pattern, in order of name. Raises BadInput if there are none."""
    folder = _cached("dataset", name, revision, (pattern,), lambda folder: any(folder.glob(pattern)))
    folder = folder or _download("dataset", name, revision, (pattern,))
    files = sorted(folder.glob(pattern))
    if not files:
        raise BadInput(f"{name} at {revision}: it holds no {pattern}")
    return files


def fetch_file(name: str, revision: str, file: str, folder: Path, seconds: float) -> None:
    """Download a file of a model into a folder. Raises BadInput, too, if the hub does not answer in so many seconds."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    with _said_in_one_message("model", name, revision):
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=seconds)
        _show_progress()
        hf_hub_download(name, file, revision=revision, local_dir=folder, etag_timeout=seconds)


def _show_progress() -> None:
    """The client's own bars, where somebody looks: a model takes minutes."""
    from huggingface_hub.utils import enable_progress_bars

    if is_first() and sys.stderr.isatty():
        enable_progress_bars()


def _is_whole_model(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    try:
        weights = set(json.loads(read_text(index))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
        return all((folder / file).is_file() for file in ("config.json", "tokenizer_config.json", *weights))
    except (ValueError, LookupError, TypeError, AttributeError):  # not such an index
        return False


def _cached(
    kind: str, name: str, revision: str | None, wanted: Sequence[str], is_whole: Callable[[Path], bool]
) -> Path | None:
    """The folder of a repository in the hub's cache, if what is wanted of it is all there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _snapshot(kind, name, revision, wanted, cached=True)
    except LocalEntryNotFoundError:
        return None
    return folder if is_whole(folder) else None


def _download(kind: str, name: str, revision: str | None, wanted: Sequence[str]) -> Path:
    """Download what is wanted of a repository that is not in the cache whole."""
    from huggingface_hub import constants

    with _said_in_one_message(kind, name, revision):
        _probe(kind, name, revision)
        if is_first():
            print(f"downloading {name} at {revision} from {constants.ENDPOINT}", file=sys.stderr)
        _show_progress()
        return _snapshot(kind, name, revision, wanted, cached=False)


def _snapshot(kind: str, name: str, revision: str | None, wanted: Sequence[str], cached: bool) -> Path:
    """The folder in the hub's cache that holds what is wanted of a repository; `cached`: without asking the hub."""
    from huggingface_hub import snapshot_download

    # its `*` also matches a slash: where files are named without a folder, those in folders are left out
    unwanted = [] if any("/" in pattern for pattern in wanted) else ["*/*"]
    return Path(
        snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=unwanted,
            local_files_only=cached,
        )
    )


@contextmanager
def _said_in_one_message(kind: str, name: str, revision: str | None) -> Iterator[None]:
    """Within: patient requests to the hub, whose failure is a BadInput and nothing else on stderr."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # of every new attempt; the last one's error becomes the message
    disable_progress_bars()
    set_client_factory(_patient_client)
    try:
        yield
    except Exception as error:  # the client's, its transfer library's, and whatever a proxy answers
        if isinstance(error, OSError) and error.errno:  # the disk's: cli.py words it
            raise
        raise BadInput(_explained(error, kind, name, revision)) from None


def _probe(kind: str, name: str, revision: str | None) -> None:
    """Ask for one small file, once: a hub that is down or refuses says so now, and not after five patient attempts."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    url = hf_hub_url(name, PROBED[kind], repo_type=kind, revision=revision)
    with suppress(RemoteEntryNotFoundError):  # the repository is there
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _patient_client() -> Any:
    """The hub's client, in which no request waits for ever (as it lists files) or for a minute (as it asks again)."""
    from huggingface_hub import constants
    from huggingface_hub.utils._http import default_client_factory

    limit = max(constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)

    def bound(request: Any) -> None:
        timeouts = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            phase: min(timeouts.get(phase) or limit, limit) for phase in ("connect", "read", "write", "pool")
        }

    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], bound]}
    return client


def _explained(error: Exception, kind: str, name: str, revision: str | None) -> str:
    """What went wrong with a download, where, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    page = f"{hub}/datasets/{name}" if kind == "dataset" else f"{hub}/{name}"
    again = "Run this again later; files that are whole are kept"
    asked = f"{name} at {revision} on {hub}"
    for each in causes(error):  # the client hides a failed connection behind a file that is not in the cache
        if isinstance(each, GatedRepoError):
            return (
                f"{asked}: gated. Accept its licence at {page}, log in with that account (`hf auth login`, or set "
                "HF_TOKEN), and run this again"
            )
        if isinstance(each, RepositoryNotFoundError):
            return (
                f"{asked}: no such {kind} there, or a private one. Check its name in params.yaml or runs.yaml; for a "
                "private one, log in with `hf auth login`"
            )
        if isinstance(each, RevisionNotFoundError):
            return f"{asked}: no such revision. Take the full hash of one of {page}/commits/main"
        if isinstance(each, OfflineModeIsEnabled):
            return f"{asked}: not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE forbids to ask; unset it"
        if isinstance(each, HfHubHTTPError):
            status = f"{each.response.status_code} {each.response.reason_phrase}"
            return f"{asked}: the hub answers {status}. {again}"
        if "Timeout" in type(each).__name__:  # its HTTP library's, whose name changes with the client's version
            return (
                f"{asked}: no answer within {constants.HF_HUB_ETAG_TIMEOUT} s (HF_HUB_ETAG_TIMEOUT), or no more of a "
                f"file within {constants.HF_HUB_DOWNLOAD_TIMEOUT} s (HF_HUB_DOWNLOAD_TIMEOUT). {again}"
            )
    return f"{asked}: cannot be downloaded ({reason(error)}). Check the network, and HF_ENDPOINT if it is set. {again}"


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it came from, and so on."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    return chain


def reason(error: BaseException) -> str:
    """What a network library's error came from in the first place, in one line."""
    first = causes(error)[-1]
    return f"{type(first).__name__}: {' '.join(str(first).split())[:250]}"
