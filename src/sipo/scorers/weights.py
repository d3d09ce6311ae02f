"""Weights from a local path or the hub, as plain tensors: nothing is ever unpickled."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils.hub import cached_file

from sipo.errors import UserError
from sipo.files import expand_home
from sipo.lfs import refuse_pointers
from sipo.tensors import load_tensors

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")


def find_file(weights: str, *names: str) -> Path:
    """The weights file: `weights` itself, or the first of `names` in the folder or hub repository that it names.

    Raises UserError where there is none.
    """
    path = Path(expand_home(weights))
    if path.is_file():
        refuse_pointers([path])
        return path
    if path.is_dir():
        refuse_pointers(path / name for name in (*names, *TOKENIZER_FILES))
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise UserError(f"weights: {path} holds no {' or '.join(names)}")
        return found[0]
    require_there(weights)
    try:
        return Path(str(cached_file(weights, names[0])))
    except (OSError, ValueError) as error:
        raise UserError(
            f"weights: {weights!r} is neither a local path nor a reachable hub repository with {names[0]}"
        ) from error


def require_there(weights: str) -> None:
    """Raises UserError for a local path that does not exist."""
    if is_local(weights) and not Path(expand_home(weights)).exists():
        raise UserError(f"weights: there is no {weights}")


def is_local(weights: str) -> bool:
    """Whether this must be a path: it exists, or is not written as a hub id (owner/name)."""
    return Path(expand_home(weights)).exists() or weights.startswith((".", "/", "~")) or weights.count("/") != 1


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict on the CPU, from .safetensors, or from torch's format with `weights_only`.

    Of a dict with the key `state_dict` that entry; a prefix "module." (of parallel training) is removed. Raises UserError
    for a file that holds anything but tensors, code above all, or is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_tensors(path)
        else:
            refuse_pointers([path])
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: refused, because it holds more than tensors (or is damaged), and reading that can run code. Ask "
            "its author for a .safetensors file, or a state dict alone."
        ) from error
    except UserError:
        raise
    except Exception as error:  # of what was damaged, it may raise anything
        raise UserError(f"{path} cannot be read as weights: {_first_line(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise UserError(f"{path} is not a state dict: expected names and tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def load_model(cls: Any, source: str | None, dtype: torch.dtype, what: str, **options: Any) -> Any:
    """`cls.from_pretrained`, in evaluation mode, with every weight from the file: none missing, of other shapes, or code.

    source None: `options` bring a `config` and a `state_dict`. what: the weights' name in messages. Raises UserError.
    """
    if source is not None:
        require_there(source)
    try:
        model, report = cls.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    except pickle.UnpicklingError as error:
        raise UserError(f"weights: {what}: refused, because its file holds more than tensors") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        hint = "" if is_local(what) else " (neither a local path nor a reachable hub repository?)"
        raise UserError(f"weights: {what} does not load as {cls.__name__}{hint}: {_first_line(error)}") from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise UserError(
            f"weights: {what} is not a {cls.__name__}: {len(lacking)} of its tensors are missing, {lacking[0]} first"
        )
    return model.eval().requires_grad_(False)


def load_tokenizer(cls: Any, source: str) -> Any:
    """Raises UserError where `source`, a folder or hub id, has no tokenizer of this class."""
    try:
        return cls.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"tokenizer: {source} has none that loads as {cls.__name__}: {_first_line(error)}") from error


def companion(weights: str, tokenizer: str | None, published: str) -> str:
    """The tokenizer's source: the one given, else the weights' own folder if it holds one, else `published`."""
    folder = Path(expand_home(weights))
    folder = folder if folder.is_dir() else folder.parent
    own = is_local(weights) and any((folder / name).is_file() for name in TOKENIZER_FILES)
    return tokenizer or (str(folder) if own else published)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
