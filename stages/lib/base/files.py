"""Files: read as UTF-8, written whole or not at all, known by their sha256; and where the project's own cache is."""

import hashlib
import json
import os
import re
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from stages.lib.base.errors import BadInput

SUMS = "SHA256SUMS"
# how files begin that are no text, what they are, and how to have one that is
AS_JSONL = (  # by this Python, which has pandas; the one that a shell finds may not
    f"{quote(sys.executable)} -c \"import pandas; pandas.read_parquet('{{0}}').to_json('{{0}}.jsonl', "
    "orient='records', lines=True)\""
)
NO_TEXT = (
    (b"PAR1", "a parquet file", f"{AS_JSONL} writes JSON Lines"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it: gunzip -c {0} > {0}.txt"),
    (b"BZh", "compressed by bzip2", "unpack it: bunzip2 -c {0} > {0}.txt"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it: xz -dc {0} > {0}.txt"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it: zstd -dc {0} > {0}.txt"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet (xlsx, ods)", "unpack it, or save the sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet (xls)", "save the sheet as CSV in UTF-8"),
    (b"\xff\xfe", "in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 {0} > {0}.txt"),
    (b"\xfe\xff", "in UTF-16", "save it as UTF-8: iconv -f UTF-16 -t UTF-8 {0} > {0}.txt"),
)


def read_text(path: Path) -> str:
    """A file as UTF-8 text (a leading byte-order mark is dropped). Raises BadInput if it is missing, or not UTF-8: with
    what it is instead, if that can be told from how it begins."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{path}: no such file") from None
    for start, what, mend in NO_TEXT:
        if content.startswith(start):
            raise BadInput(f"{path}: not text, but {what}; {mend.format(path)}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}: not UTF-8 at byte {error.start} (line {line}); save it as UTF-8") from None


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON. The file appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends. The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed
        left.unlink(missing_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:  # a full disk does not say where
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where downloaded and unpacked files are kept: ~/.cache/aftertune, or under $XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aftertune"


def sha256_text(text: str) -> str:
    """sha256 of the UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(path: Path) -> list[Path]:
    """All files of a folder, in order of name, or the file itself."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over all files of a folder, as `sha256sum --check` reads it."""
    files = [file for file in files_in(folder) if file.name != SUMS]
    write_text(folder / SUMS, "".join(f"{sha256_file(file)}  {file.relative_to(folder)}\n" for file in files))


def damage(folder: Path) -> str | None:
    """What is wrong with a folder by its SHA256SUMS: a message that names the file, or None."""
    if not (folder / SUMS).is_file():
        return f"{folder / SUMS} is missing"
    listed = set()
    for number, line in enumerate(read_text(folder / SUMS).splitlines(), 1):
        digest, _, name = line.partition("  ")
        known = re.fullmatch("[0-9a-f]{64}", digest) and re.fullmatch(r"[\w./ -]{1,200}", name)
        if not known or {"", ".."} & set(name.split("/")):
            return f"{folder / SUMS}:{number}: not the sha256 and the name of a file in this folder"
        if not (folder / name).is_file():
            return f"{folder / name} is missing"
        if sha256_file(folder / name) != digest:
            return f"{folder / name} is damaged: its sha256 is not the one in {SUMS}"
        listed.add(folder / name)
    if unlisted := [file for file in files_in(folder) if file.name != SUMS and file not in listed]:
        return f"{unlisted[0]} is not in {folder / SUMS}"
    return None


def rounded(value: Any) -> Any:
    """Nested values with floats rounded to six digits, so that a diff of metrics shows changes, not noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if is_dataclass(value):
        return replace(value, **{field.name: rounded(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
