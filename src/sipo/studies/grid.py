"""A study as YAML declares it, and the runs that its grid consists of."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sipo.config import Config, parse_config
from sipo.errors import UsageError, UserError, well_formed
from sipo.rounds.config import OnlineConfig, parse_online
from sipo.yaml12 import read_mapping

NAMED = Path(__file__).parent / "named"
STEPS = ("step", "timestep", "round")  # what may lie on the horizontal beside an axis
Settings = Mapping[str, Any]  # key.path -> value, as overrides on the command line


@dataclass(frozen=True)
class Measure:
    """What of a run counts: the scores of its samples, which are drawn while it trains."""

    scorer: str = "miniature"
    values: tuple[str, ...] = ("score",)  # "score", or details of the scorer such as "correct"
    moments: int = 8  # samples are drawn at the start and at this many evenly spaced steps, or after as many rounds
    prompts: str = "miniature"
    num_prompts: int = 240
    categories: bool = False  # the values again for each category of the prompts, their "tag"


@dataclass(frozen=True)
class Cell:
    """One run of the grid, a training or online rounds: where it lies in it, and its config."""

    labels: Mapping[str, str]  # axis -> label
    seed: int
    config: Config | OnlineConfig

    @property
    def training(self) -> Config:
        """The config of the training, or of every round's."""
        return self.config.training if isinstance(self.config, OnlineConfig) else self.config

    @property
    def path(self) -> Path:
        return Path(self.training.run)

    @property
    def length(self) -> str:
        """How long the run is, for people."""
        if isinstance(self.config, OnlineConfig):
            return f"{self.config.rounds.num_rounds} rounds"
        return f"{self.config.train.num_steps} steps"


@dataclass(frozen=True)
class Study:
    """A base config, axes of settings, seeds, and what is measured.

    `axes`: axis -> label -> settings; null leaves out a key that the base or an axis before gives. `curves`: the axis that
    the lines of the figure stand for; `panels`: the axis of its panels; `x`: the axis on the horizontal, or "step", or
    "timestep": then the values are the training's own means by timestep bin, such as `w_chosen`; or "round": then the runs
    are online rounds, and the base has their section. `quick`: settings of the study's short form, applied to every run.
    """

    name: str
    title: str
    question: str
    base: Settings
    axes: Mapping[str, Mapping[str, Settings]]
    seeds: tuple[int, ...]
    measure: Measure
    x: str = "step"
    curves: str | None = None
    panels: str | None = None
    quick: Settings = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)

    def cells(self, runs: Path) -> list[Cell]:
        """All runs, seeds innermost, in directories below `runs`. Raises UsageError with every mistake of a config."""
        found = []
        for combination in itertools.product(*(axis.items() for axis in self.axes.values())):
            labels = dict(zip(self.axes, (label for label, _ in combination), strict=True))
            chosen = {key: value for _, settings in combination for key, value in settings.items()}
            for seed in self.seeds:
                settings = {**self.settings, **chosen, "train.seed": seed, "run": str(runs / _name(labels, seed))}
                found.append(Cell(labels, seed, self._config(settings, labels)))
        if len({cell.path for cell in found}) < len(found):
            raise UsageError(f"study {self.name}: two runs of the grid have the same name: labels must differ")
        return found

    def _config(self, settings: Settings, labels: Mapping[str, str]) -> Config | OnlineConfig:
        given = {**flattened(self.base), **settings}
        raw, measure = nested({key: value for key, value in given.items() if value is not None}), self.measure
        where = f"study {self.name} ({', '.join(f'{axis} {label}' for axis, label in labels.items())})"
        # One thread a run, so that its numbers do not depend on how many run at once.
        raw["train"] = {**raw.get("train", {}), "num_threads": 1}
        if self.x == "round":
            held_out = {"held_out": measure.prompts, "num_held_out": measure.num_prompts, "scorer": measure.scorer}
            raw["rounds"] = {**raw.get("rounds", {}), **held_out, "num_rounds": measure.moments}
            return parse_online(raw, where)
        steps = raw.get("train", {}).get("num_steps", 1000)
        every = steps / measure.moments
        if every != int(every):
            raise UsageError(f"study {self.name}: {steps} steps do not divide into {measure.moments} moments")
        raw["sample"] = {**raw.get("sample", {}), "prompts": measure.prompts, "num_prompts": measure.num_prompts}
        raw["train"] |= {"sample_every": int(every)}
        return parse_config(raw, where)

    @property
    def moment(self) -> str:
        """What a row's place is counted in: "step", "timestep" or "round"."""
        return self.x if self.x in STEPS else "step"

    def shortened(self) -> "Study":
        """The quick form."""
        keys = {f.name for f in dataclasses.fields(Measure)}
        measure = {
            key.removeprefix("measure."): value for key, value in self.quick.items() if key.startswith("measure.")
        }
        if unknown := measure.keys() - keys:
            raise UsageError(
                f"study {self.name}: quick: unknown key measure.{min(unknown)}; known: {', '.join(sorted(keys))}"
            )
        rest = {
            key: value
            for key, value in self.quick.items()
            if not key.startswith("measure.") and key not in ("seeds", "labels")
        }
        labels = self.quick.get("labels", {})
        axes = {
            axis: {label: options[label] for label in labels.get(axis, options)} for axis, options in self.axes.items()
        }
        return dataclasses.replace(
            self, axes=axes, seeds=tuple(self.quick.get("seeds", self.seeds)), settings={**self.settings, **rest},
            measure=dataclasses.replace(self.measure, **measure),
        )  # fmt: skip


def _name(labels: Mapping[str, str], seed: int) -> str:
    """Of a run directory: labels and seed, safe for every file system."""
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-").lower() for label in labels.values()]
    return "_".join([*plain, f"seed{seed}"])


def named_studies() -> list[str]:
    """Names of the studies that ship with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in NAMED.iterdir() if entry.name.endswith(".yaml"))


def read_study(name: str) -> Study:
    """A shipped study by its name, or one's own from a YAML file. Raises UsageError for what cannot be read."""
    if name in named_studies():
        path, source = NAMED / f"{name}.yaml", f"study {name}"
    else:
        path, source = Path(name), name
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UsageError(f"{name!r} is neither a YAML file nor a study; studies: {', '.join(named_studies())}")
    try:
        raw = read_mapping(path)
    except UserError as error:
        raise UsageError(str(error)) from None
    with well_formed(source):
        return parse_study(_with_parent(raw, source), source)


def _with_parent(raw: Any, source: str) -> Any:
    """`like: NAME`: base, measure, seeds and quick (but for its labels) of that shipped study, under this one's own keys."""
    if not isinstance(raw, dict) or "like" not in raw:
        return raw
    if raw["like"] not in named_studies():
        raise UsageError(f"{source}: like: {raw['like']!r} is no study; studies: {', '.join(named_studies())}")
    parent = _with_parent(read_mapping(NAMED / f"{raw['like']}.yaml"), f"study {raw['like']}")
    merged = {
        key: nested({**flattened(parent.get(key, {})), **flattened(raw.get(key, {}))}) for key in ("base", "measure")
    }
    own = {key: value for key, value in raw.items() if key != "like"}
    quick = {key: value for key, value in parent["quick"].items() if key != "labels"} | raw.get("quick", {})
    return {"seeds": parent["seeds"], **own, **merged, "quick": quick}


def parse_study(raw: Any, source: str) -> Study:
    """Build a Study from plain dictionaries. Raises UsageError naming the key."""
    known = {f.name for f in dataclasses.fields(Study)}
    if not isinstance(raw, dict):
        raise UsageError(f"{source} should hold keys such as name, base, axes, seeds; found {type(raw).__name__}")
    if unknown := raw.keys() - known:
        raise UsageError(f"{source}: unknown key {min(unknown)}; known: {', '.join(sorted(known))}")
    missing = {"name", "title", "question", "base", "axes", "seeds"} - raw.keys()
    if missing:
        raise UsageError(f"{source}: missing {', '.join(sorted(missing))}")
    try:
        measure = Measure(
            **{**raw.get("measure", {}), "values": tuple(raw.get("measure", {}).get("values", ("score",)))}
        )
    except TypeError as error:
        raise UsageError(f"{source}: measure: {error}") from None
    axes = {str(axis): _axis(str(axis), options, source) for axis, options in raw["axes"].items()}
    for role in ("x", "curves", "panels"):
        if raw.get(role) not in (None, *STEPS, *axes):
            raise UsageError(f"{source}: {role}: {raw[role]!r} is no axis; axes: {', '.join(axes)}")
    if hidden := axes.keys() - {raw.get(role, "step") for role in ("x", "curves", "panels")}:
        raise UsageError(f"{source}: the axis {min(hidden)} is shown by none of x, curves and panels")
    if (raw.get("x") == "round") != ("rounds" in raw["base"]):
        raise UsageError(f"{source}: x: round is for a base with a section rounds, and for no other")
    return Study(**{**raw, "axes": axes, "seeds": tuple(raw["seeds"]), "measure": measure})


def _axis(name: str, options: Any, source: str) -> dict[str, Settings]:
    """label -> settings; `{key.path: [values]}` is short for one label a value."""
    if isinstance(options, dict) and len(options) == 1:
        ((key, values),) = options.items()
        if isinstance(values, list):
            return {str(value): {str(key): value} for value in values}
    if not isinstance(options, dict) or not all(isinstance(each, dict) for each in options.values()):
        raise UsageError(f"{source}: axes.{name}: should map labels to settings, or one key to a list of values")
    return {str(label): flattened(each) for label, each in options.items()}


def flattened(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as key.path -> value."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def nested(settings: Settings) -> dict[str, Any]:
    """key.path -> value as nested mappings; later keys win."""
    raw: dict[str, Any] = {}
    for path, value in settings.items():
        *parents, last = path.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return raw
