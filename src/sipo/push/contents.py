"""What of a run goes to the hub, and nothing else: no checkpoints, caches, logs, tokens or paths of this machine."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo.errors import UserError, well_formed
from sipo.files import read_text, visible, write_atomic
from sipo.hub.address import parse_address
from sipo.jsonl import dump_jsonl, read_json
from sipo.push.card import hub_card, read_result
from sipo.push.portable import Portable, of_this_machine
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, VIDEO, picture_of, read_samples
from sipo.tensors import open_tensors
from sipo.yaml12 import write_yaml

CARD = "README.md"
MOST_SAMPLES = 8  # pictures of each of two steps
KINDS = (".json", ".jinja", ".txt", ".model", ".safetensors")  # suffixes of files of pipelines and adapters
DESCRIPTIONS = ("config.json", "model_index.json", "sipo.json")  # how the names of files end that may hold a path


@dataclass(frozen=True)
class Item:
    """path: in the repository. file: where it is now."""

    path: str
    file: Path

    @property
    def size(self) -> int:
        return self.file.stat().st_size


@dataclass(frozen=True)
class Parcel:
    """Everything that goes. notes: what was changed on the way."""

    items: list[Item]
    notes: list[str]

    @property
    def size(self) -> int:
        return sum(item.size for item in self.items)


def pack(run: RunDir, weights: Path, repo: str, revision: str | None, staging: Path) -> Parcel:
    """Collect what goes. weights: the folder that `export` or a training wrote. staging: a folder for changed files.

    Raises UserError for weights without a card, and for a file that cannot be cleared of what must not go.
    """
    config = run.require().read_config()
    portable = of_this_machine(run.path, config)
    make = Maker(staging, portable)
    shown = portable.value(_pinned(run, config))
    items = [make("config.yaml", lambda: write_yaml(shown))]
    samples, pictures = _samples(run)
    is_video = samples[0][1].endswith(VIDEO) if samples else None
    card = weights / CARD
    if not card.is_file():
        raise UserError(f"{weights} holds no weights of a run: it has no {CARD}")
    table = [(prompt, *(picture_of(Path(file)).as_posix() for file in files)) for prompt, *files in samples]
    result = read_result(run.evaluation)
    items.append(
        make(CARD, lambda: portable.text(hub_card(read_text(card), shown, repo, revision, result, table, is_video)))
    )
    items += _weights(weights, make)
    if run.metrics.is_file():
        items.append(make.lines("metrics.jsonl", run.iter_metrics()))
    if run.report.is_file():
        items.append(make("report.html", lambda: portable.text(read_text(run.report))))
    items += [Item(f"plots/{file.name}", file) for file in sorted((run.path / "plots").glob("*.png"))]
    return Parcel(sorted([*items, *pictures], key=lambda item: item.path), make.notes)


@dataclass
class Maker:
    """Writes changed files into `staging`, and notes what was changed in each."""

    staging: Path
    portable: Portable

    def __post_init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, path: str, content: Callable[[], str]) -> Item:
        with self._noted(path):
            write_atomic(self.staging / path, content())
        return Item(path, self.staging / path)

    def lines(self, path: str, records: Iterable[dict[str, Any]]) -> Item:
        """A line a record of metrics, whose own values may be texts."""
        with self._noted(path), (self.staging / path).open("w", encoding="utf-8", errors="backslashreplace") as file:
            for record in records:
                texts = {key: self.portable.text(value) for key, value in record.items() if isinstance(value, str)}
                file.write(dump_jsonl([record | texts]))
        return Item(path, self.staging / path)

    @contextmanager
    def _noted(self, path: str) -> Iterator[None]:
        paths, tokens = self.portable.paths, self.portable.tokens
        yield
        changes = (
            (self.portable.paths - paths, "path", "made a name"),
            (self.portable.tokens - tokens, "token", "removed"),
        )
        said = [f"{count} {what}{'s' * (count > 1)} {done}" for count, what, done in changes if count]
        if said:
            self.notes.append(f"{path}: {', '.join(said)}")


def _pinned(run: RunDir, config: dict[str, Any]) -> dict[str, Any]:
    """The config with pairs of the hub at the commit that was read."""
    record, data = read_json(run.data) or {}, dict(config.get("data") or {})
    with well_formed(run.data):
        for key, checked in (("path", record), ("validation", record.get("validation") or {})):
            if hub := checked.get("hub"):
                data[key] = str(parse_address(hub["address"]).at(hub["commit"]))
    return config | {"data": data}


def _weights(folder: Path, make: Maker) -> Iterator[Item]:
    """The files of a pipeline or of adapters; descriptions that name a path of this machine name it no longer."""
    for file in visible(folder, (file for file in folder.rglob("*") if file.is_file())):
        path = file.relative_to(folder).as_posix()
        if path == CARD:
            continue
        if file.suffix not in KINDS:
            raise UserError(f"{file} is no file of weights; take it out of {folder}, and run the same command again")
        if file.suffix == ".safetensors":
            _require_clean(file, make.portable)
        if file.name.endswith(DESCRIPTIONS):
            value = read_json(file)
            if (changed := Portable(make.portable.places, make.portable.secrets).value(value)) != value:
                make.portable.value(value)  # counts
                yield make(path, lambda changed=changed: json.dumps(changed, indent=2))
                continue
        yield Item(path, file)


def _require_clean(file: Path, portable: Portable) -> None:
    """Raises UserError for tensors whose metadata name a path of this machine."""
    with open_tensors(file) as tensors:
        metadata = json.dumps(tensors.metadata() or {})
    if Portable(portable.places, portable.secrets).text(metadata) != metadata:
        raise UserError(f"{file} names a path of this machine, or a token, in its metadata; export it again")


def _samples(run: RunDir) -> tuple[list[tuple[str, str, str]], list[Item]]:
    """Prompt, first and last sample, by their paths in the repository; and the files."""
    folders = [run.samples_at(step) for step in run.sample_steps()]
    folders = [folder for folder in folders if (folder / SAMPLES).is_file()]
    if len(folders) < 2:
        return [], []
    first, last = folders[0], folders[-1]
    after = {(sample.prompt, sample.seed): sample for sample in read_samples(last)}
    found, items = [], []
    for number, before in enumerate(read_samples(first)[:MOST_SAMPLES]):
        if (match := after.get((before.prompt, before.seed))) is None:
            continue
        paths = []
        for name, folder, sample in (("first", first, before), ("last", last, match)):
            files = {folder / sample.file, folder / sample.picture}
            paths.append(f"samples/{name}/{number:02d}{Path(sample.file).suffix}")
            items += [
                Item(f"samples/{name}/{number:02d}{file.suffix}", file) for file in sorted(files) if file.is_file()
            ]
        found.append((before.prompt, *paths))
    return found, items
