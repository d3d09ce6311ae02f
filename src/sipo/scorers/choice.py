"""Which scorers a command uses: by name, with weights or an environment of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sipo import registry
from sipo.errors import UsageError
from sipo.scorers.base import DetailedScorer, FileScorer, Scorer, VideoScorer


@dataclass(frozen=True)
class ScorerChoice:
    """Scorers by the names under which their scores are kept, and what they are made with; None: their own defaults.

    sources: `module:attribute` of the names that were chosen so. workers: commands, by name (`sipo.scorers.worker`).
    A scorer with `weights` is always run, and its older scores are kept only if they fit.
    """

    names: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 16
    num_frames: int = 8

    def load(self, name: str) -> Scorer | FileScorer:
        """The scorer, whose weights are read when they are needed. Raises UsageError for an unknown one."""
        if name in self.workers:
            from sipo.scorers.worker import WorkerScorer

            return WorkerScorer(name, self.workers[name])
        return load_scorer(
            self.sources.get(name, name), self.weights.get(name), self.device, self.dtype, self.batch_size,
            self.num_frames,
        )  # fmt: skip

    def load_all(self) -> list[Scorer | FileScorer]:
        """Raises UsageError where none was chosen."""
        if not self.names:
            raise UsageError("--scorer: name at least one, such as --scorer pickscore")
        return [self.load(name) for name in self.names]


def choose_scorers(
    scorers: Sequence[str] = (),
    weights: Sequence[str] = (),
    workers: Sequence[str] = (),
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int = 16,
    num_frames: int = 8,
) -> ScorerChoice:
    """From the command line: NAME or NAME=WEIGHTS of `scorers`, NAME=WEIGHTS, and NAME=COMMAND of `workers`.

    Raises UsageError for other forms, weights given twice or to a scorer that was not named, and workers of its name.
    """
    chosen, given = named_values("--scorer", scorers, bare=True), named_values("--weights", weights)
    commands = named_values("--worker", workers)
    if twice := sorted(name for name in given if chosen.get(name)):
        raise UsageError(f"--weights: {', '.join(twice)} has weights from --scorer already")
    if unknown := sorted(given.keys() - chosen.keys()):
        raise UsageError(f"--weights: {', '.join(unknown)} is not among the scorers named")
    if twice := sorted(commands.keys() & chosen.keys()):
        raise UsageError(f"--worker: {', '.join(twice)} is a --scorer too; choose another name")
    called = {entry: load_scorer(entry).name if ":" in entry else entry for entry in chosen}
    return ScorerChoice(
        names=tuple(dict.fromkeys([*called.values(), *commands])),
        weights={called[entry]: path for entry, path in (chosen | given).items() if path},
        sources={name: entry for entry, name in called.items() if name != entry},
        workers=commands, device=device, dtype=dtype, batch_size=batch_size, num_frames=num_frames,
    )  # fmt: skip


def choose_one(scorer: str, worker: str | None = None) -> ScorerChoice:
    """The one scorer of a config: as for `sipo score`, or with a `worker`, a command, under the name `scorer`.

    Raises UsageError for an unknown one.
    """
    chosen = choose_scorers([scorer]) if worker is None else choose_scorers(workers=[f"{scorer}={worker}"])
    chosen.load_all()
    return chosen


def named_values(option: str, entries: Sequence[str], bare: bool = False) -> dict[str, str]:
    """NAME=VALUE, each name once; with `bare`, NAME alone has the value "". Raises UsageError for anything else."""
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name or bool(equals) != bool(value) or not (value or bare) or (value and found.get(name)):
            raise UsageError(f"{option}: {entry!r} should be {'NAME or ' if bare else ''}NAME=VALUE, each name once")
        found[name] = value or found.get(name, "")
    return found


def load_scorer(
    name: str,
    weights: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    num_frames: int = 8,
) -> Scorer | FileScorer:
    """A scorer by name (`sipo list scorers`) or `module:attribute`; None leaves a setting at its default.

    One that scores pictures alone takes the mean over `num_frames` frames of a video. Raises UsageError for an unknown
    name or an invalid setting. Weights are read when they are first needed.
    """
    from sipo.scorers.frames import FrameMean

    found = registry.scorers.make(name, weights=weights, device=device, dtype=dtype, batch_size=batch_size)
    return found if isinstance(found, DetailedScorer | VideoScorer | FileScorer) else FrameMean(found, num_frames)
