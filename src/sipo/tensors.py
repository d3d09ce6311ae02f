"""safetensors files as people have them: what is none, or is damaged, is named."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sipo.errors import UserError
from sipo.lfs import refuse_pointers


def open_tensors(path: Path) -> Any:
    """safetensors' `safe_open` on the CPU. Raises UserError for a damaged file, a pointer, and for what is no file."""
    refuse_pointers([path])
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole .safetensors file: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by their names; errors as of `open_tensors`."""
    with open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
