"""A hub on this machine, for tests of what the libraries' real clients do against it: 127.0.0.1 only, one free port.

It serves repositories (models and data sets, each a folder that stands for one commit) the way the hub does: what is in
a repository, its files with ETag, X-Repo-Commit and Range, large files at another host by a redirect; and plain files
by path, as GitHub's raw files are. It misbehaves on order. To try something by hand against an empty HF_HOME:

    python -m tests.hub.server FOLDER [--seconds 600]

FOLDER holds models/<owner>/<name>/<commit>/..., datasets/<owner>/<name>/<commit>/... and raw/...; it stops by itself.
"""

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LONGEST = 90.0  # seconds that an answer may be held back, whatever was ordered
LARGE = (".safetensors", ".parquet", ".bin", ".gguf")  # kept apart from git, as by the hub
TOKEN = "hf_of_someone_who_accepted_the_licence"


@dataclass(frozen=True)
class Entry:
    """A file of a repository."""

    path: Path

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        """git's name of the content; of a large file, of the pointer that git has in its place."""
        content = self.content
        if self.is_large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            content = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def is_large(self) -> bool:
        return self.path.suffix in LARGE

    def listed(self, name: str) -> dict[str, Any]:
        """What the hub's listings say of it."""
        said = {"type": "file", "path": name, "size": len(self.content), "oid": self.oid}
        if self.is_large:
            said["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return said


@dataclass(frozen=True)
class Repository:
    """A model or data set at its one commit."""

    commit: str
    files: dict[str, Entry]


@dataclass(frozen=True)
class Order:
    """How to misbehave for requests whose path matches `path` (a regular expression), so many times."""

    path: str = ""
    times: float = float("inf")
    wait: float = 0.0  # seconds before the answer
    status: int | None = None  # an answer of nothing else
    cut_after: int | None = None  # bytes of the content, after which the connection is closed
    stall_after: int | None = None  # bytes of the content, after which nothing more comes


@dataclass
class Hub:
    """What is served, and how. `asked` is what was asked for: method, path and Range header, in order."""

    repositories: dict[tuple[str, str], Repository]
    raw: Path
    port: int = 0
    gated: set[str] = field(default_factory=set)
    orders: list[Order] = field(default_factory=list)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def order_for(self, path: str) -> Order:
        """The first order that this path falls under, used up once more; else one that does no harm."""
        with self.lock:
            for number, order in enumerate(self.orders):
                if order.times > 0 and re.search(order.path, path):
                    self.orders[number] = Order(**{**vars(order), "times": order.times - 1})
                    return order
        return Order()


def read_folder(folder: Path) -> dict[tuple[str, str], Repository]:
    """The repositories of a folder: <kind>/<owner>/<name>/<commit>/..."""
    return {
        (kind, f"{place.parts[-3]}/{place.parts[-2]}"): Repository(
            place.name, {str(p.relative_to(place)): Entry(p) for p in sorted(place.rglob("*")) if p.is_file()}
        )
        for kind in ("models", "datasets")
        for place in sorted((folder / kind).glob("*/*/*"))
    }


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """The hub of a folder, answering until the block ends (or the process: its threads hold nothing up)."""
    hub = Hub(read_folder(folder), folder / "raw")
    handler = type("Bound", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        hub.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield hub
        finally:
            hub.stopping.set()
            server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One connection. The base class is the standard library's way to answer HTTP."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    timeout = 120  # seconds that a connection may lie idle

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.hub.lock:
            self.hub.asked.append((self.command, path, self.headers.get("Range")))
        order = self.hub.order_for(path)
        self.hub.stopping.wait(min(order.wait, LONGEST))
        if self.hub.stopping.is_set():
            self.close_connection = True
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            if order.status:
                self.answer(order.status)
            else:
                self.route(path.strip("/").split("/"), body, order)

    def route(self, parts: list[str], body: bytes, order: Order) -> None:
        match parts:
            case ["raw", *rest]:
                file = self.hub.raw.joinpath(*rest)
                inside = file.resolve().is_relative_to(self.hub.raw.resolve())
                self.content(Entry(file), {}, order) if inside and file.is_file() else self.answer(404)
            case ["large", digest]:
                self.large(digest, order)
            case ["api", ("models" | "datasets") as kind, owner, name, *rest]:
                self.about(kind, f"{owner}/{name}", rest, body)
            case ["datasets", owner, name, "resolve", revision, *rest]:
                self.file("datasets", f"{owner}/{name}", revision, "/".join(rest), order)
            case [owner, name, "resolve", revision, *rest]:
                self.file("models", f"{owner}/{name}", revision, "/".join(rest), order)
            case _:
                self.answer(404)

    def found(self, kind: str, name: str, revision: str) -> Repository | None:
        """The repository at a revision; if there is none, the hub's answer to that has been given."""
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            # the hub does not tell a stranger whether a repository is missing or private
            self.answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in ("main", repository.commit):
            self.answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        else:
            return repository
        return None

    def about(self, kind: str, name: str, rest: list[str], body: bytes) -> None:
        """The hub's API: a repository, what is in it, some of its paths."""
        question, revision, folder = (rest[:1] or ["revision"])[0], (rest[1:2] or ["main"])[0], "/".join(rest[2:])
        repository = self.found(kind, name, revision)
        if repository is None:
            return
        files = repository.files
        if question == "revision":
            said = {"id": name, "sha": repository.commit, "private": False, "disabled": False, "tags": []}
            said |= {"gated": "manual" if name in self.hub.gated else False, "downloads": 0, "likes": 0}
            self.answer(200, {}, {**said, "siblings": [{"rfilename": file} for file in files]})
        elif question == "tree":
            within = {file: entry for file, entry in files.items() if file.startswith(f"{folder}/" if folder else "")}
            if not within:
                self.answer(404, {"X-Error-Code": "EntryNotFound"})
                return
            self.answer(200, {}, [entry.listed(file) for file, entry in within.items()])
        elif question == "paths-info":
            is_json = "json" in self.headers.get("Content-Type", "")
            paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode()).get("paths", [])
            self.answer(200, {}, [files[file].listed(file) for file in paths if file in files])
        else:
            self.answer(404)

    def file(self, kind: str, name: str, revision: str, file: str, order: Order) -> None:
        repository = self.found(kind, name, revision)
        if repository is None:
            return
        if name in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if self.headers.get("Authorization") else 401
            self.answer(status, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to {name} is restricted."})
            return
        commit = {"X-Repo-Commit": repository.commit}
        entry = repository.files.get(file)
        if entry is None:
            self.answer(404, {**commit, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif entry.is_large:
            linked = {"X-Linked-Size": str(len(entry.content)), "X-Linked-Etag": f'"{entry.sha256}"'}
            # another name of this host, so that it is another host to the client, as the hub's storage is
            place = f"http://localhost:{self.hub.port}/large/{entry.sha256}"
            self.answer(302, {**commit, **linked, "Location": place})
        else:
            self.content(entry, {**commit, "ETag": f'"{entry.oid}"'}, order)

    def large(self, digest: str, order: Order) -> None:
        if self.headers.get("Authorization"):  # a login is the hub's alone
            self.answer(400)
            return
        entries = [entry for each in self.hub.repositories.values() for entry in each.files.values() if entry.is_large]
        for entry in entries:
            if entry.sha256 == digest:
                self.content(entry, {"ETag": f'"{digest}"'}, order)
                return
        self.answer(404)

    def content(self, entry: Entry, headers: dict[str, str], order: Order) -> None:
        """A file's bytes, or the range of them that was asked for; broken off or stalled, if so ordered."""
        content, status = entry.content, 200
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if asked and any(asked.groups()):
            first, last = asked.groups()
            start = int(first) if first else max(0, len(content) - int(last))
            end = min(int(last) if first and last else len(content) - 1, len(content) - 1)
            if start > end:
                self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
            content, status = content[start : end + 1], 206
        self.send_response(status)
        for name, value in {
            **headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(content)),
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = min(size for size in (order.cut_after, order.stall_after, len(content)) if size is not None)
        self.wfile.write(content[:stop])
        if stop < len(content):
            self.wfile.flush()
            if order.stall_after is not None:
                self.hub.stopping.wait(LONGEST)
            self.close_connection = True

    def answer(self, status: int, headers: dict[str, str] | None = None, value: Any = None) -> None:
        """Anything but a file: a status, headers, a value as JSON."""
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600, help="how long it serves [600]")
    arguments = parser.parse_args()
    with serving(arguments.folder) as hub:
        print(f"export HF_ENDPOINT={hub.address} AILUMINATE_URL={hub.address}/raw", flush=True)
        time.sleep(arguments.seconds)


if __name__ == "__main__":
    main()
