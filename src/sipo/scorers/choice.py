"""Which scorers a command uses: by name, with weights or an environment of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sipo import registry
from sipo.errors import UsageError
from sipo.scorers.base import DetailedScorer, FileScorer, Scorer, VideoScorer
from sipo.scorers.worker import PATIENCE, WorkerScorer


@dataclass(frozen=True)
class ScorerChoice:
    """Scorers by the names under which their scores are kept, and what they are made with; None: their own defaults.

    sources: `module:attribute`, or the file of a judge, of the names that were chosen so. workers: commands, by name
    (`sipo.scorers.worker`), each ended after `patience` seconds of silence. pair_judges: files of judges that compare two
    samples; they give no scores.
    """

    names: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)
    patience: float = PATIENCE
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 16
    num_frames: int = 8
    pair_judges: tuple[str, ...] = ()

    def is_explicit(self, name: str) -> bool:
        """Whether it has weights of its own, or is a judge: it is always run, and older scores are kept if they fit."""
        return name in self.weights or is_judge(self.sources.get(name, name))

    def load(self, name: str) -> Scorer | FileScorer:
        """The scorer, whose weights are read when they are needed. Raises UsageError for an unknown one."""
        if name in self.workers:
            return WorkerScorer(name, self.workers[name], patience=self.patience)
        return load_scorer(
            self.sources.get(name, name), self.weights.get(name), self.device, self.dtype, self.batch_size,
            self.num_frames,
        )  # fmt: skip

    def load_all(self) -> list[Scorer | FileScorer]:
        """Raises UsageError where none was chosen, and for a judge that gives no scores."""
        if self.pair_judges:
            raise UsageError(f"--scorer: {self.pair_judges[0]} compares two samples; sipo compare takes it")
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
    patience: float = PATIENCE,
) -> ScorerChoice:
    """From the command line: NAME, NAME=WEIGHTS or a judge's file of `scorers`, NAME=WEIGHTS, and NAME=COMMAND of `workers`.

    Raises UsageError for other forms, weights given twice or to a scorer that was not named, workers of its name, and
    judges of one name.
    """
    chosen, given = named_values("--scorer", scorers, bare=True), named_values("--weights", weights)
    commands = named_values("--worker", workers)
    if twice := sorted(name for name in given if chosen.get(name)):
        raise UsageError(f"--weights: {', '.join(twice)} has weights from --scorer already")
    if unknown := sorted(given.keys() - chosen.keys()):
        raise UsageError(f"--weights: {', '.join(unknown)} is not among the scorers named")
    if twice := sorted(commands.keys() & chosen.keys()):
        raise UsageError(f"--worker: {', '.join(twice)} is a --scorer too; choose another name")
    pair_judges = tuple(entry for entry in chosen if is_judge(entry) and compares(entry))
    called = {
        entry: load_scorer(entry).name if is_source(entry) else entry for entry in chosen if entry not in pair_judges
    }
    if len(set(called.values())) < len(called):
        raise UsageError(f"--scorer: {', '.join(called)} have one name twice; a judge's file may give another as name")
    return ScorerChoice(
        names=tuple(dict.fromkeys([*called.values(), *commands])),
        weights={called[entry]: path for entry, path in (chosen | given).items() if path},
        sources={name: entry for entry, name in called.items() if name != entry},
        workers=commands, device=device, dtype=dtype, batch_size=batch_size, num_frames=num_frames,
        pair_judges=pair_judges, patience=patience,
    )  # fmt: skip


def is_judge(entry: str) -> bool:
    """Whether a scorer is chosen by the file of a judge (`sipo.scorers.judge`)."""
    return entry.endswith((".yaml", ".yml"))


def is_source(entry: str) -> bool:
    """Whether a scorer is chosen by something else than its name: `module:attribute`, or the file of a judge."""
    return ":" in entry or is_judge(entry)


def compares(file: str) -> bool:
    """Whether a judge compares two samples. Raises UsageError for a file that is no judge."""
    from sipo.scorers.judge.config import read_judge

    return read_judge(file).compares


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
    """A scorer by name (`sipo list scorers`), `module:attribute`, or a judge's file; None leaves a setting at its default.

    One that scores pictures alone takes the mean over `num_frames` frames of a video. Raises UsageError for an unknown
    name or an invalid setting. Weights are read when they are first needed.
    """
    from sipo.scorers.frames import FrameMean

    if is_judge(name):
        from sipo.scorers.judge.judges import load_point_judge

        return load_point_judge(name, weights)
    found = registry.scorers.make(name, weights=weights, device=device, dtype=dtype, batch_size=batch_size)
    return found if isinstance(found, DetailedScorer | VideoScorer | FileScorer) else FrameMean(found, num_frames)
