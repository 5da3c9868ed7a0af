"""What a safetensors file holds, by its header: names and shapes; and whether all of it are numbers."""

from pathlib import Path

from stages.lib.base.errors import BadInput
from stages.lib.model.sources import first_line


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, from the header alone. Raises BadInput for what is no safetensors file."""
    from safetensors import safe_open

    if not file.is_file():
        raise BadInput(f"{file.name} is missing; other weight formats (pickles) are not loaded")
    try:
        with safe_open(file, "pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 - no dict
    except Exception as error:  # the library's own, for files that are damaged
        raise BadInput(f"{file.name}: not readable as safetensors: {first_line(error)}") from None


def check_finite(file: Path) -> None:
    """Refuse weights that hold nan or infinity (BadInput). One tensor is in memory at a time."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no dict
            if not tensors.get_tensor(name).isfinite().all():
                raise BadInput(f"{file.name}: {name} holds nan or infinity")
