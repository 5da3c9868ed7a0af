"""The model card: what weights are, from what they were made, what was measured, what they are not for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.lib.base.files import read_text, sha256_file
from stages.lib.base.measured import PREPARED
from stages.lib.base.sections import Model
from stages.lib.base.texts import templates
from stages.lib.base.yaml_files import dump_yaml

ELSEWHERE = "elsewhere.json"  # beside the card of a model that was tuned elsewhere: what was found of it


def model_card(
    kind: str,
    model: Model,
    sets: Sequence[str],
    params: Mapping[str, Any],
    measured: Mapping[str, Any] | None = None,
    elsewhere: Sequence[str] | None = None,
) -> str:
    """Markdown with a head in YAML. `kind`: adapter, merged or whole; `model`: the base model; `sets`: files of
    data/prepared that the card vouches for; `params`: nested, as in params.yaml; `measured`: where it was; `elsewhere`:
    what was found of a model that was tuned elsewhere."""
    files = [(name, PREPARED / f"{name}.jsonl") for name in sets]
    data = [(name, read_text(path).count("\n"), sha256_file(path)) for name, path in files]
    template = templates([Path(__file__).parent], autoescape=False).get_template("card.md.j2")
    return template.render(
        kind=kind, model=model, data=data, yaml=dump_yaml(params), measured=measured, elsewhere=elsewhere
    )
