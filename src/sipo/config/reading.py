"""From YAML with `key.path=value` overrides to a `Config`; every mistake is reported at once.

pydantic validates at this border alone, so that the components stay free of it.
"""

import dataclasses
import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from sipo.config.sections import (
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    PolicyConfig,
    SampleConfig,
    TrainConfig,
)
from sipo.errors import UsageError
from sipo.kernels import KERNELS
from sipo.losses import LOSSES
from sipo.terms import ImportanceWeight
from sipo.timesteps import TIMESTEPS

SECTIONS = {"model": ModelConfig, "data": DataConfig, "weight": ImportanceWeight, "policy": PolicyConfig,
            "train": TrainConfig, "sample": SampleConfig, "log": LogConfig}  # fmt: skip
NAMED = {"loss": (LOSSES, None), "kernel": (KERNELS, "ddim"), "timesteps": (TIMESTEPS, "uniform")}
REQUIRED = ("run", "model", "data", "loss")


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, apply `key.path=value` overrides, build the config. Raises UsageError with every mistake."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no config file {path}") from None
    except OSError as error:
        raise UsageError(f"the config file {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path} should hold keys such as run, model, data, loss; found {type(raw).__name__}")
    for override in overrides or []:
        _apply_override(raw, override)
    return parse_config(raw, source=str(path))


def parse_config(raw: dict[str, Any], source: str = "config") -> Config:
    """Build a Config from plain dictionaries. Raises UsageError listing every mistake with the nearest right key."""
    mistakes: list[str] = []
    built: dict[str, Any] = {}
    known = [f.name for f in dataclasses.fields(Config) if f.name != "num_inference_steps"]
    mistakes += [f"{key}: unknown key{_nearest(key, known)}" for key in raw if key not in known]
    mistakes += [f"{key}: missing" for key in REQUIRED if raw.get(key) is None]
    if raw.get("run") is not None:
        built["run"] = str(raw["run"])
    for key, cls in SECTIONS.items():
        if raw.get(key) is not None:
            built[key] = _build(cls, raw[key], key, mistakes)
    for key, (registry, default) in NAMED.items():
        if raw.get(key) is not None:
            _build_named(registry, default, key, raw[key], built, mistakes)
    if mistakes:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise UsageError(f"{count} in {source}:\n" + "\n".join(f"  {mistake}" for mistake in mistakes))
    return Config(**built)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The keys in which two configs (as `to_dict` gives them) differ, as (key.path, old, new)."""
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append((prefix + key, a, b))
    return found


def _build_named(registry, default, key, raw, built, mistakes) -> None:
    if not isinstance(raw, dict):
        mistakes.append(
            f"{key}: should be a mapping with a name, such as {{name: {next(iter(registry))}}}; found {raw!r}"
        )
        return
    fields = dict(raw)
    name = fields.pop("name", default)
    if name not in registry:
        mistakes.append(f"{key}.name: {name!r} is none of {', '.join(registry)}{_nearest(str(name), registry)}")
        return
    if key == "kernel" and "num_inference_steps" in fields:
        grid = fields.pop("num_inference_steps")
        if isinstance(grid, int) and not isinstance(grid, bool) and grid > 1:
            built["num_inference_steps"] = grid
        else:
            mistakes.append(f"kernel.num_inference_steps: should be a whole number above 1; found {grid!r}")
    built[key] = _build(registry[name], fields, key, mistakes)


def _build(cls, raw, prefix: str, mistakes: list[str]):
    """One dataclass through pydantic; what it says goes to `mistakes` in our words."""
    names = [f.name for f in dataclasses.fields(cls)]
    if not isinstance(raw, dict):
        mistakes.append(f"{prefix}: should be a mapping with keys such as {', '.join(names[:4])}; found {raw!r}")
        return None
    if "mixed_precision" in raw and raw["mixed_precision"] is False:
        raw = {**raw, "mixed_precision": "no"}  # YAML 1.1 reads a bare `no` as false
    strict_bools = [name for name, value in raw.items() if isinstance(value, bool) and not _takes_bool(cls, name)]
    mistakes += [f"{prefix}.{name}: found {raw[name]!r}, a {_wanted(cls, name)} is wanted" for name in strict_bools]
    if strict_bools:
        raw = {name: value for name, value in raw.items() if name not in strict_bools}
    wrapped = pydantic_dataclass(cls, config=ConfigDict(extra="forbid"), frozen=True)
    try:
        validated = TypeAdapter(wrapped).validate_python(raw)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"] if not str(part).startswith(("function-", "tuple[")))
            name = str(problem["loc"][0]) if problem["loc"] else ""
            if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                mistakes.append(f"{prefix}.{name}: unknown key{_nearest(name, names)}")
            elif problem["type"] in ("missing", "missing_argument"):
                mistakes.append(f"{prefix}.{name}: missing")
            elif problem["type"] == "value_error":
                mistakes.append(f"{prefix}: {problem['ctx']['error']}")
            else:
                mistakes.append(f"{prefix}.{where}: found {problem['input']!r}; {problem['msg'].lower()}")
        return None
    return cls(**{name: getattr(validated, name) for name in names})


def _takes_bool(cls, name: str) -> bool:
    return all(f.name != name or "bool" in str(f.type) for f in dataclasses.fields(cls))


def _wanted(cls, name: str) -> str:
    kind = next(f.type for f in dataclasses.fields(cls) if f.name == name)
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _apply_override(raw: dict[str, Any], override: str) -> None:
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
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{override!r}: the value is not readable as YAML: {error}") from None


def _nearest(key: str, names) -> str:
    close = difflib.get_close_matches(str(key), list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(names)}"
