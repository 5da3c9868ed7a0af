"""YAML 1.2, in which `3e-5` is a number (PyYAML: a string): values read and written, and the line of each."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from stages.lib.base.errors import BadInput
from stages.lib.base.files import read_text


def read_yaml(path: Path) -> Any:
    """The values of a YAML 1.2 file. Raises BadInput if it is missing, not UTF-8 or not YAML."""
    if path.is_dir():
        raise BadInput(f"{path}: a folder, not a file")
    if not path.exists():
        raise BadInput(f"{path}: no such file; run this from the root of the repository")
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str | bytes, where: str) -> Any:
    """The values of a YAML 1.2 text. Raises BadInput naming where if it is not UTF-8 or not YAML."""
    try:
        return YAML(typ="safe").load(text if isinstance(text, str) else text.decode("utf-8"))
    # not UTF-8, no date, a number of 5,000 digits, an unknown word for true, nested too deep
    except (ValueError, LookupError, OverflowError, RecursionError, YAMLError) as error:
        said = " ".join(str(error).split()).split(" To suppress this check")[0]
        raise BadInput(f"{where}: not readable as YAML: {said[:300]}") from None


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Nested values as YAML text, with nothing written as null."""
    yaml, text = YAML(), StringIO()
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _quoted_where_odd)
    yaml.dump(dict(values), text)
    return text.getvalue()


def _quoted_where_odd(representer: Any, text: str) -> Any:
    # control characters and line ends are read back only as escapes in double quotes
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


def lines_of(path: Path) -> dict[tuple[str, ...], int]:
    """Line number of each key in a YAML mapping, by its path of keys."""
    lines: dict[tuple[str, ...], int] = {}
    seen: set[int] = set()  # an alias stands for the same mapping again

    def walk(node: Any, prefix: tuple[str, ...]) -> None:
        if isinstance(node, CommentedMap) and id(node) not in seen:
            seen.add(id(node))
            for key, value in node.items():
                if key not in (node.lc.data or ()):  # merged in from elsewhere
                    continue
                lines[(*prefix, str(key))] = node.lc.key(key)[0] + 1
                walk(value, (*prefix, str(key)))

    walk(YAML().load(read_text(path)), ())
    return lines
