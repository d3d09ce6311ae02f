"""From YAML with `key.path=value` overrides to a `Config`; every mistake is reported at once.

pydantic checks and converts single values here, at the border, so that the components need not know it.
"""

import dataclasses
import functools
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sipo.config.sections import COMPONENTS, Config, component_class
from sipo.errors import UsageError, did_you_mean
from sipo.yaml12 import read_yaml

REQUIRED = ("run", "model", "data", "loss")
DEFAULTS = {"kernel": "ddim", "timesteps": "uniform"}  # names of components where none is given


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, apply `key.path=value` overrides, build the config. Raises UsageError with every mistake."""
    return parse_config(read_config(path, overrides), source=str(path))


def read_config(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """A YAML file with `key.path=value` overrides, as plain dictionaries. Raises UsageError."""
    path = Path(path)
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no config file {path}") from None
    except OSError as error:
        raise UsageError(f"the config file {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} should hold keys such as run, model, data, loss; found {type(raw).__name__}")
    for override in overrides or []:
        apply_override(raw, override)
    return raw


def parse_config(raw: dict[str, Any], source: str = "config", mistakes: Sequence[str] = ()) -> Config:
    """Build a Config from plain dictionaries. Raises UsageError listing every mistake with the nearest right key.

    mistakes: those that were found elsewhere in the file.
    """
    kinds = {key: kind for key, kind in typing.get_type_hints(Config).items() if key != "num_inference_steps"}
    mistakes = [*mistakes, *(f"{key}: unknown key{did_you_mean(key, kinds)}" for key in raw if key not in kinds)]
    mistakes += [f"{key}: missing" for key in REQUIRED if raw.get(key) is None]
    built: dict[str, Any] = {}
    for key in [key for key in kinds if raw.get(key) is not None]:
        if key in COMPONENTS:
            built |= _build_component(key, raw[key], mistakes)
        elif key != "run":
            built[key] = build(kinds[key], raw[key], key, mistakes)
        elif isinstance(raw[key], str | int):
            built[key] = str(raw[key])
        else:
            mistakes.append(f"run: found {raw[key]!r}; expected a text, in quotes if it looks like a number")
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UsageError(f"{count} in {source}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
    return Config(**built)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The keys in which two configs (as `to_dict` returns them) differ, as (key.path, old, new)."""
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def _build_component(key: str, raw: Any, mistakes: list[str]) -> dict[str, Any]:
    """The component under its key; with a kernel, the `num_inference_steps` of its grid too."""
    if not isinstance(raw, dict):
        example = next(iter(COMPONENTS[key].own()))
        mistakes.append(f"{key}: should be a mapping with a name, such as {{name: {example}}}; found {raw!r}")
        return {}
    fields, built = dict(raw), {}
    try:
        cls = component_class(key, fields.pop("name", DEFAULTS.get(key)))
    except UsageError as error:
        mistakes.append(str(error))
        return {}
    if key == "kernel" and "num_inference_steps" in fields:
        grid = built["num_inference_steps"] = fields.pop("num_inference_steps")
        if isinstance(grid, bool) or not isinstance(grid, int) or grid < 2:
            mistakes.append(f"kernel.num_inference_steps: should be a whole number above 1; found {grid!r}")
    return built | {key: build(cls, fields, key, mistakes)}


def build(cls: type, raw: Any, prefix: str, mistakes: list[str]) -> Any:
    """An instance of the dataclass; None where its keys or values are wrong, which is added to `mistakes`."""
    hints, fields = typing.get_type_hints(cls), dataclasses.fields(cls)
    known = [field.name for field in fields]
    if not isinstance(raw, dict):
        mistakes.append(f"{prefix}: should be a mapping with keys such as {', '.join(known[:4])}; found {raw!r}")
        return None
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    wrong = [f"{prefix}.{name}: unknown key{did_you_mean(name, known)}" for name in raw if name not in known]
    wrong += [f"{prefix}.{name}: missing" for name in required if name not in raw]
    values = {}
    for name in [name for name in raw if name in known]:
        if (section := _section(hints[name])) and isinstance(raw[name], dict):
            values[name] = build(section, raw[name], f"{prefix}.{name}", wrong)
            continue
        try:
            values[name] = _convert(hints[name], raw[name])
        except ValidationError as error:
            expected = "; or ".join(dict.fromkeys(_expected(problem["msg"]) for problem in error.errors()))
            wrong.append(f"{prefix}.{name}: found {raw[name]!r}; expected {expected}")
    mistakes += wrong
    try:
        return None if wrong else cls(**values)
    except ValueError as error:
        mistakes.append(f"{prefix}: {error}")
        return None


def _section(kind: Any) -> type | None:
    """The dataclass of a field that is a section of its own, perhaps an optional one."""
    return next((each for each in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(each)), None)  # pyright: ignore[reportReturnType]


_adapter = functools.cache(TypeAdapter)


def _convert(kind: Any, value: Any) -> Any:
    """pydantic's lenient conversions (a list to a tuple, 1e3 to an int), but no boolean is a number, nor a text one."""
    takes_bool = bool in (kind, *typing.get_args(kind))
    return _adapter(kind).validate_python(value, strict=isinstance(value, bool | str if takes_bool else bool))


def _expected(message: str) -> str:
    """What pydantic's message expects."""
    message = message.replace("Field required", "another element")
    return message.removeprefix("Input should be ").replace("a valid boolean", "true or false")


def apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{override!r}: an override is written key.path=value, such as train.num_steps=500")
    *parents, last = key.strip().split(".")
    node = raw
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict):
            raise UsageError(f"{override!r}: {parent} holds a value, not a mapping")
    try:
        node[last] = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{override!r}: the value is not readable as YAML: {error}") from None
