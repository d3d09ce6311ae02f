"""The config of online rounds: what a round does, and the trainings that it becomes."""

import dataclasses
import functools
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sipo.backbones import Architecture
from sipo.config import Config, differences, parse_config
from sipo.config.reading import build, read_config
from sipo.config.sections import Count, FromZero, Positive, Seed
from sipo.data.pairs.check import check_pairs, default_memory
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UsageError, UserError
from sipo.files import write_atomic
from sipo.losses import D3PO
from sipo.registry import miniature
from sipo.samples.folder import PromptItem
from sipo.samples.prompts import read_prompts
from sipo.samples.sources import require_sources
from sipo.scorers.choice import choose_one
from sipo.scorers.suited import require_suited
from sipo.train.d3po import require_trajectories
from sipo.yaml12 import read_mapping, write_yaml

FILLED_IN = (("data", "path"), ("policy", "start"), ("policy", "reference"))  # keys of a training, by every round
FAR = 1_000_000  # seeds of rounds begin here, far from those of evaluations


@dataclass(frozen=True)
class Rounds:
    """What a round does; the section `rounds` of an online config."""

    held_out: str  # prompts on which every round is scored; a miniature's name stands for its held-out prompts
    scorer: str  # as for `sipo score`: NAME, NAME=WEIGHTS or module:Class; with a worker, the name of its scores
    worker: str | None = None  # the command of a scorer in an environment of its own
    prompts: str | None = None  # a prompt file, or a miniature's name for its training prompts; null with `chosen`
    num_rounds: Count = 10
    num_prompts: Count = 3000  # a round
    samples_per_prompt: Count = 2
    mode: Literal["best-worst", "all"] = "best-worst"  # pairs of a prompt's samples, as of `sipo label`
    margin: FromZero = 0.0
    only_right: bool = False
    chosen: str | None = None  # self-play: pairs whose chosen members win against the policy's own samples
    epochs: Positive | None = 20.0  # passes over a round's pairs; null: train.num_steps
    reference: Literal["fixed", "previous"] = "fixed"  # the model, or the policy that the round starts from
    num_held_out: Count = 64
    seed: Seed = 0

    def __post_init__(self) -> None:
        if (self.prompts is None) == (self.chosen is None):
            raise ValueError("give either prompts, whose samples are paired by their scores, or chosen, for self-play")
        if self.samples_per_prompt < (2 if self.chosen is None else 1):
            raise ValueError(f"samples_per_prompt must be at least 2 for a pair, got {self.samples_per_prompt}")


@dataclass(frozen=True)
class OnlineConfig:
    """The rounds, and the config of their trainings but for what each round fills in."""

    rounds: Rounds
    training: Config

    @property
    def path(self) -> Path:
        return Path(self.training.run)

    def to_dict(self) -> dict[str, Any]:
        """As in YAML, every default written out."""
        plain = {"rounds": dataclasses.asdict(self.rounds), **self.training.to_dict()}
        for section, key in FILLED_IN:
            del plain[section][key]
        return plain

    def round_config(self, number: int, pairs: Path, folder: Path, start: Path | None, num_steps: int | None) -> Config:
        """The training of a round on `pairs` into `folder`/run, from the weights `start` (None: the model)."""
        config, at_start = self.training, self.rounds.reference == "previous" and start is not None
        cache = None if config.data.cache is None else str(folder / "cache")
        return dataclasses.replace(
            config,
            run=str(folder / "run"),
            data=dataclasses.replace(config.data, path=str(pairs), cache=cache),
            policy=dataclasses.replace(
                config.policy, start=None if start is None else str(start), reference="start" if at_start else "base"
            ),
            train=dataclasses.replace(
                config.train, seed=1000 * config.train.seed + number, num_steps=num_steps or config.train.num_steps
            ),
        )

    def num_steps(self, num_pairs: int, world: int) -> int | None:
        """Those of `epochs` passes over the pairs; None for the config's own."""
        if self.rounds.epochs is None:
            return None
        train = self.training.train
        return max(
            1, math.ceil(self.rounds.epochs * num_pairs / (train.batch_size * train.gradient_accumulation * world))
        )


def load_online(path: str | Path, overrides: list[str] | None = None) -> OnlineConfig:
    """Read and check an online config. Raises UsageError with every mistake."""
    return parse_online(read_config(path, overrides), str(path))


def parse_online(raw: dict[str, Any], source: str = "config") -> OnlineConfig:
    """Build an OnlineConfig from plain dictionaries. Raises UsageError with every mistake."""
    mistakes: list[str] = []
    rounds = build(Rounds, raw.get("rounds"), "rounds", mistakes)
    for section, key in FILLED_IN:
        if isinstance(raw.get(section), dict) and raw[section].get(key) is not None:
            mistakes.append(f"{section}.{key}: every round has its own; leave it out")
    rest = {key: value for key, value in raw.items() if key != "rounds"}
    data = rest.get("data") or {}
    training = parse_config(
        {**rest, "data": {**data, "path": "-"} if isinstance(data, dict) else data}, source, mistakes
    )
    return OnlineConfig(rounds, training)


def require_ready(config: OnlineConfig) -> None:
    """Raises UsageError for a scorer or prompts that do not exist, too few prompts, or held-out ones among them."""
    rounds = config.rounds
    require_trajectories(config.training)
    if rounds.chosen is not None and isinstance(config.training.loss, D3PO):
        raise UsageError("rounds.chosen: d3po needs trajectories of both members, which chosen media do not have")
    if rounds.chosen is not None and config.training.data.noise == "sampled":
        raise UsageError(
            "data.noise: sampled needs the seeds of both members, which media of rounds.chosen do not have"
        )
    choose_one(rounds.scorer, rounds.worker)
    prompts, held_out = prompts_of(rounds), {(item.prompt, item.source) for item in held_out_items(rounds)}
    if len(prompts) < rounds.num_prompts:
        raise UsageError(f"rounds.num_prompts: {rounds.num_prompts} a round; there are {len(prompts)}: choose fewer")
    if shared := [prompt for prompt, _ in held_out & {(item.prompt, item.source) for item in prompts}]:
        raise UsageError(
            f"rounds.held_out: {len(shared)} of these prompts are trained on too, such as {min(shared)!r}; their scores "
            "would not be held out"
        )


def require_prompts_for(config: OnlineConfig, architecture: Architecture) -> None:
    """Raises UserError for prompts without sources where the model reads them, and UsageError for a scorer that cannot judge
    the model's samples.
    """
    size = architecture.size(config.training.data.size)
    chosen = choose_one(config.rounds.scorer, config.rounds.worker).load_all()
    require_suited("rounds.scorer", chosen, architecture, size)
    if not architecture.takes_source:
        return
    require_file_sources(config.rounds, architecture.family.name)
    given = "prompts" if config.rounds.chosen is None else "chosen"
    for key, items in ((given, prompts_of(config.rounds)), ("held_out", held_out_items(config.rounds))):
        try:
            require_sources(items, size.picture)
        except UserError as error:
            raise UserError(f"rounds.{key}: {error}") from error


def require_file_sources(rounds: Rounds, family: str) -> None:
    """Raises UserError for self-play on pairs without sources, or with sources inside a table: the rounds' pairs name files."""
    if rounds.chosen is None:
        return
    source, rows = open_chosen(rounds.chosen)
    if not _has_files(source, rows):
        what = "hold the content of their sources" if source.has_source else "have no source"
        raise UserError(
            f"rounds.chosen: the pairs of {rounds.chosen} {what}; a {family} reads one, and self-play needs it as a file: "
            "give a .jsonl manifest whose lines have a path under source"
        )


def require_same(config: OnlineConfig) -> None:
    """Compare with the folder's online.yaml, if there is one, else write it. `rounds.num_rounds` may grow, `run` change."""
    file = config.path / "online.yaml"
    if file.is_file():
        before = read_mapping(file)
        with suppress(UsageError):  # keys that an earlier version did not have are at their defaults
            before = parse_online(before).to_dict()
        changed = [
            f"  {key}: {old!r} in the folder, {now!r} now"
            for key, old, now in differences(before, config.to_dict())
            if key != "run"
            and not (key == "rounds.num_rounds" and now > old)
            and (key, old, now) != ("sample.batch_size", 8, None)  # the default, as version 0.1.0 wrote it out
        ]
        if changed:
            raise UsageError(
                f"{config.path} was started with another config; only rounds.num_rounds may grow:\n" + "\n".join(changed)
                + "\nPut the values back to resume, or choose another folder (run=...)."
            )  # fmt: skip
    write_atomic(file, write_yaml(config.to_dict()))


def prompts_of(rounds: Rounds) -> list[PromptItem]:
    """All that rounds draw from, in the order of their file, or of the rows of the chosen ones."""
    if rounds.chosen is not None:
        source, rows = open_chosen(rounds.chosen)
        known = _has_files(source, rows)  # the content of a table's sources would fill the memory
        return [
            PromptItem(prompt, row, source=source[row].source if known else None)
            for prompt, row in zip(source.prompts(rows), rows, strict=True)
        ]
    bundled = miniature(rounds.prompts)
    return read_prompts(bundled.train_prompts if bundled else str(rounds.prompts))


def _has_files(source: PairSource, rows: list[int]) -> bool:
    """Whether the pairs have sources, and these are files."""
    return source.has_source and bool(rows) and isinstance(source[rows[0]].source, Path)


@functools.cache
def open_chosen(path: str) -> tuple[PairSource, list[int]]:
    """The pairs of self-play, and the rows of it that are usable."""
    source = open_pairs(path)
    return source, check_pairs(source, progress=False, remember=default_memory()).usable


def held_out_items(rounds: Rounds) -> list[PromptItem]:
    """What every round is scored on: the same prompts and seeds."""
    return read_prompts(rounds.held_out, rounds.num_held_out, rounds.seed)


def prompts_of_round(rounds: Rounds, number: int) -> list[PromptItem]:
    """Distinct ones of all prompts, drawn anew: a function of the seed and the round's number."""
    prompts = prompts_of(rounds)
    order = np.random.default_rng((rounds.seed, number)).permutation(len(prompts))
    return [prompts[place] for place in order[: rounds.num_prompts]]


def items_of_round(rounds: Rounds, number: int) -> list[PromptItem]:
    """The samples of a round: those of one prompt have successive seeds, from a multiple of their number on."""
    first, count = FAR + (rounds.seed * 1000 + number) * rounds.num_prompts, rounds.samples_per_prompt
    return [
        PromptItem(item.prompt, (first + place) * count + k, item.metadata, item.source)
        for place, item in enumerate(prompts_of_round(rounds, number))
        for k in range(count)
    ]
