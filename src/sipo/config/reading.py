"""From YAML with `key.path=value` overrides to a `Config`; every mistake is reported at once.

pydantic checks and converts single values here, at the border, so that the components need not know it.
"""

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sipo.config.hints import hint
from sipo.config.hub import hub_config
from sipo.config.sections import COMPONENTS, Config, ModelConfig, PolicyConfig, TrainConfig, component_class
from sipo.errors import UsageError, UserError, shown
from sipo.hub.address import is_address
from sipo.losses import D3PO
from sipo.losses.common import T
from sipo.yaml12 import read_mapping, read_yaml

REQUIRED = ("run", "model", "data", "loss")
DEFAULTS = {"kernel": "ddim", "timesteps": "uniform"}  # names of components where none is given


def is_config_file(path: str) -> bool:
    """Whether a model is named by a config (`.yaml`, `.yml`) rather than by what `model.path` takes."""
    return path.endswith((".yaml", ".yml"))


def load_config(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, or a config of the hub (see `hub_config`), apply `key.path=value` overrides, build the config.

    Raises UsageError with every mistake.
    """
    if is_address(path):
        raw = hub_config(str(path), [override.partition("=")[0].strip() for override in overrides or ()])
        return parse_config(_overridden(raw, overrides), source=str(path))
    return parse_config(read_config(path, overrides), source=str(path))


def read_config(path: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """A YAML file with `key.path=value` overrides, as plain dictionaries. Raises UsageError."""
    path = Path(path)
    try:
        raw = read_mapping(path)
    except FileNotFoundError:
        raise UsageError(f"there is no config file {path}") from None
    except OSError as error:
        raise UsageError(f"the config file {path} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UsageError(str(error)) from None
    return _overridden(raw, overrides)


def _overridden(raw: dict[str, Any], overrides: Sequence[str] | None) -> dict[str, Any]:
    for override in overrides or ():
        apply_override(raw, override)
    return raw


def parse_config(raw: dict[str, Any], source: str = "config", mistakes: Sequence[str] = ()) -> Config:
    """Build a Config from plain dictionaries. Raises UsageError listing every mistake with the nearest right key.

    mistakes: those that were found elsewhere in the file.
    """
    kinds = {key: kind for key, kind in typing.get_type_hints(Config).items() if key != "num_inference_steps"}
    mistakes = [*mistakes, *(f"{key}: unknown key{hint('', key, list(kinds))}" for key in raw if key not in kinds)]
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
            mistakes.append(f"run: found {shown(raw[key])}; expected a text, in quotes if it looks like a number")
    mistakes += [] if mistakes else [*_disagreements(built), *_beyond_errors(Config(**built))]
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
        mistakes.append(f"{key}: should be a mapping with a name, such as {{name: {example}}}; found {shown(raw)}")
        return {}
    fields, built = dict(raw), {}
    try:
        cls = component_class(key, fields.pop("name", DEFAULTS.get(key)))
    except UsageError as error:
        mistakes.append(str(error))
        return {}
    if key == "kernel" and "num_inference_steps" in fields:
        grid = built["num_inference_steps"] = fields.pop("num_inference_steps")
        if isinstance(grid, bool) or not isinstance(grid, int) or not 2 <= grid <= T:
            mistakes.append(
                f"kernel.num_inference_steps: found {shown(grid)}; expected a whole number from 2 to {T}, the timesteps of training"
            )
    return built | {key: build(cls, fields, key, mistakes)}


def build(cls: type, raw: Any, prefix: str, mistakes: list[str]) -> Any:
    """An instance of the dataclass; None where its keys or values are wrong, which is added to `mistakes`."""
    hints, fields = typing.get_type_hints(cls, include_extras=True), dataclasses.fields(cls)
    known = [field.name for field in fields]
    if not isinstance(raw, dict):
        mistakes.append(f"{prefix}: should be a mapping with keys such as {', '.join(known[:4])}; found {shown(raw)}")
        return None
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    wrong = [
        f"{prefix}.{shown(name)[1:-1]}: unknown key{hint(prefix, name, known)}" for name in raw if name not in known
    ]
    wrong += [f"{prefix}.{name}: missing" for name in required if name not in raw]
    values = {}
    for name in [name for name in raw if name in known]:
        if (section := _section(hints[name])) and isinstance(raw[name], dict):
            values[name] = build(section, raw[name], f"{prefix}.{name}", wrong)
            continue
        if isinstance(raw[name], float) and math.isnan(raw[name]):
            wrong.append(f"{prefix}.{name}: found NaN; expected a value")
            continue
        try:
            values[name] = _convert(hints[name], raw[name])
        except ValidationError as error:
            expected = "; or ".join(dict.fromkeys(_expected(problem["msg"]) for problem in error.errors()))
            wrong.append(f"{prefix}.{name}: found {shown(raw[name])}; expected {expected}")
    built = _construct(cls, values, prefix, [*required, *raw], wrong)
    mistakes += wrong
    return None if wrong else built


def _construct(cls: type, values: dict[str, Any], prefix: str, given: list[str], wrong: list[str]) -> Any:
    """The dataclass of the values. What it refuses itself is added to `wrong`, key by key, beside the wrong types.

    A refused value is put back to its default and the others are tried again. given: keys of the config; of those that
    are not among the values nothing more is said.
    """
    values, said = dict(values), {name for name in given if name not in values}
    values |= dict.fromkeys({f.name for f in dataclasses.fields(cls) if f.name in said and _has_no_default(f)}, "")
    while True:
        try:
            return cls(**values)
        except TypeError:
            if not wrong:
                raise
            return None  # a stand-in of the wrong type
        except ValueError as error:
            key = re.match(r"\w*", str(error))[0]  # pyright: ignore[reportOptionalSubscript]
            if not said & set(re.findall(r"\w+", str(error))):
                wrong.append(f"{prefix}.{error}" if key in values else f"{prefix}: {error}")
            if key not in values or key in said:
                return None
            said.add(key)
            del values[key]


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _disagreements(built: dict[str, Any]) -> list[str]:
    """Values of different sections that cannot go together, and values beyond what every model family has."""
    loss, timesteps, found = built["loss"], built.get("timesteps"), []
    kernel, model, train = built.get("kernel"), built["model"], built.get("train")
    if model.dtype not in (None, "float32") and (train is None or train.mixed_precision == "no"):
        found.append(f"model.dtype: {model.dtype} weights compute under train.mixed_precision bf16 or fp16 only")
    policy, train = built.get("policy", PolicyConfig()), built.get("train", TrainConfig())
    found += _quantized_badly(model.quantize, policy, train) if model.quantize else []
    found += _offloaded_badly(model, policy, train) if model.offload else []
    if kernel is not None and kernel.deterministic:
        if loss.needs_importance_weights:
            found.append(
                "kernel.eta: found 0, a step without noise; the importance weights of loss.name need eta above 0"
            )
        if getattr(loss, "omega", None) == "transition":
            found.append("kernel.eta: found 0, a step without noise; loss.omega: transition needs eta above 0")
    low, high = getattr(timesteps, "low", 0), getattr(timesteps, "high", None)
    for key, value in (("low", low), ("high", high)):
        if isinstance(value, int | float) and value > T - (key == "low"):
            found.append(
                f"timesteps.{key}: found {value:g}; the timesteps of training are 0 to {T - 1}, and high is not drawn"
            )
    return found


def _quantized_badly(kind: str, policy: PolicyConfig, train: TrainConfig) -> list[str]:
    """What weights in 8 or 4 bits cannot do: be trained, or be sharded."""
    found = []
    if policy.kind == "full":
        found.append(
            f"model.quantize: {kind} is for a frozen base under adapters, and policy.kind: full trains it; use policy.kind: "
            "lora, or leave model.quantize out"
        )
    if train.sharding != "none":
        found.append(f"model.quantize: {kind} goes with train.sharding: none; every process holds the quantised base")
    return found


def _offloaded_badly(model: ModelConfig, policy: PolicyConfig, train: TrainConfig) -> list[str]:
    """Blocks are moved where they are frozen, run again before the backward, and lie in one piece on the CPU."""
    key, found = f"model.offload: {model.offload}", []
    if model.offload == "blocks" and policy.kind == "full":
        found.append(
            f"{key} moves frozen blocks, and policy.kind: full trains them; model.offload: reference moves its frozen copy"
        )
    if model.offload == "reference" and policy.kind == "lora":
        found.append(
            f"{key} moves the frozen copy of policy.kind: full; under adapters the blocks are frozen: model.offload: blocks"
        )
    if model.offload == "blocks" and not train.gradient_checkpointing:
        found.append(f"{key} needs train.gradient_checkpointing: true; without it the backward holds every block")
    if model.quantize:
        found.append(
            f"{key} and model.quantize: {model.quantize} do not go together; quantised blocks stay on the device"
        )
    if train.sharding != "none":
        found.append(f"{key} goes with train.sharding: none, where each process holds all blocks")
    if train.compile:
        found.append(f"{key} goes with train.compile: false")
    return found


def _beyond_errors(config: Config) -> list[str]:
    """What reads more of the reference than the errors that `train.reference.precompute` keeps, or nothing at all."""
    if config.train.reference.precompute is None:
        return []
    if isinstance(config.loss, D3PO):
        reason = "loss.name: d3po reads the densities of the reference's steps, not its errors"
    elif config.weighs_by_reference:
        reason = (
            f"weight.denominator: {config.weight.denominator} reads the reference's predictions, not its errors alone"
        )
    elif not config.loss.needs_reference:
        reason = f"loss.name: {COMPONENTS['loss'].name_of(type(config.loss))} has no reference"
    else:
        return []
    return [f"train.reference.precompute: {reason}; leave it out"]


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
    for said, plain in (
        ("Input should be ", ""), ("Value error, ", ""), ("a valid boolean", "true or false"),
        ("greater than or equal to", "at least"), ("less than or equal to", "at most"), ("greater than", "more than"),
    ):  # fmt: skip
        message = message.replace(said, plain)
    return message


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
