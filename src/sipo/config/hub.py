"""A config of the hub: that of a run which somebody pushed, or of pairs alone. Nobody may have read it before it is used."""

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sipo.errors import UsageError, UserError, shown
from sipo.hub.address import parse_address
from sipo.hub.download import download, listing
from sipo.yaml12 import read_mapping

FILE = "config.yaml"  # as `sipo push` names it
YAML = (".yaml", ".yml")
NAMES = ("name", "scorer")  # keys whose value may be module:attribute


def hub_config(text: str, replaced: Collection[str] = ()) -> dict[str, Any]:
    """The config at `hf://OWNER/NAME` (its config.yaml) or at a file in a repository, as plain dictionaries.

    The address of a data set stands for training on it: with SIPO's defaults, into runs/NAME; the model is to be added.
    replaced: keys whose values are not used. Raises UsageError for a config that would run code of its author's choice,
    or write or read outside the current folder; UserError for what the hub refuses.
    """
    address = parse_address(text)
    if address.kind == "dataset" and not address.path.endswith(YAML):
        name = address.repo.partition("/")[2]
        return {"run": f"runs/{name}", "data": {"path": text}, "loss": {"name": "sipo"}}
    if address.path and not address.path.endswith(YAML):
        raise UsageError(f"{text} is no config: expected a .yaml file")
    found = listing(parse_address(f"{text.rstrip('/')}/{FILE}") if not address.path else address)
    [file] = found.files
    try:
        raw = read_mapping(download(found, [file]) / file)
    except UserError as error:
        raise UsageError(f"{text}: {error}") from None
    if faults := [fault for key, value in _leaves(raw) if not _is_in(key, replaced) and (fault := _fault(key, value))]:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise UsageError(
            f"{text} is a config of the hub, which is used only while it runs no code and stays in this folder:\n{listed}\n"
            "Give values of your own (key=value), or download the file, read it, and name it instead."
        )
    return raw


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key.path, value) of everything that is no mapping or list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _is_in(key: str, keys: Collection[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)


def _fault(key: str, value: Any) -> str | None:
    """What a value would do that only its user may decide."""
    last = key.rpartition(".")[2]
    if last == "worker" and value is not None:
        return f"{key}: {shown(value)} is a command"
    if not isinstance(value, str):
        return None
    if last in NAMES and ":" in value:
        return f"{key}: {shown(value)} names code"
    here = value.partition("=")[2] if last == "scorer" and "=" in value else value
    paths = PurePosixPath(here), PureWindowsPath(here)
    if any(path.root or path.drive or ".." in path.parts for path in paths) or here.startswith("~"):
        return f"{key}: {shown(value)} is a path outside this folder"
    return None
