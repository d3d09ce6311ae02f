"""What `sipo score PATH` scores: a run, a folder of generated media, GenEval's layout, or any folder and a prompt file.

A run                    its newest folder of samples, and every folder of its evaluations
samples.jsonl in it      the media that `sipo generate` made
GenEval's layout         00000/metadata.jsonl (its prompt) and 00000/samples/*.png, one folder a prompt
with a prompt file       .jsonl with lines of {"file", "prompt"}: those files, and under "source" what each was made of;
                         .txt or .jsonl without files: the folder's media in the order of their names (2 before 10), equally
                         many for each prompt: of 6 files for 3 prompts the first two belong to the first one
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sipo.data.media.kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from sipo.errors import UserError
from sipo.files import natural_order, visible
from sipo.run import RunDir
from sipo.samples.folder import METADATA, SAMPLES, PromptItem, Sample, read_samples
from sipo.samples.metadata import read_metadata
from sipo.samples.prompts import read_prompts


@dataclass(frozen=True)
class MediaFolder:
    """A folder, and the prompt of each of its samples; files are relative to the folder."""

    path: Path
    samples: list[Sample]


def find_media(path: Path, prompts: str | None = None) -> list[MediaFolder]:
    """The folders to score. A prompt file, where given, decides. Raises UserError where nothing is found, or files and prompts do not match."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"There is no folder {path}.")
    if prompts is not None:
        return [MediaFolder(path, _with_prompts(path, prompts))]
    if RunDir(path).config.is_file():
        return [MediaFolder(folder, read_samples(folder)) for folder in _of_run(RunDir(path))]
    if (path / SAMPLES).is_file():
        return [MediaFolder(path, read_samples(path))]
    geneval = sorted(path.glob(f"*/{METADATA}"), key=lambda file: natural_order(file.parent.name))
    if geneval:
        return [MediaFolder(path, [sample for file in geneval for sample in _of_geneval(path, file)])]
    raise UserError(
        f"{path} is no run, has no {SAMPLES} and no GenEval layout (*/{METADATA}): name a file of its prompts with "
        '--prompts, a .txt with one a line or a .jsonl of {"file", "prompt"}.'
    )


def find_one(path: Path) -> MediaFolder:
    """The only folder of `find_media`. Raises UserError for several."""
    found = find_media(path)
    if len(found) != 1:
        raise UserError(f"{path} holds several folders of media: name one of them.")
    return found[0]


def _of_run(run: RunDir) -> list[Path]:
    steps = run.sample_steps()
    folders = [run.samples_at(steps[-1])] if steps else []
    folders += sorted(file.parent for file in run.evaluation.rglob(SAMPLES))
    found = [folder for folder in folders if (folder / SAMPLES).is_file()]
    if not found:
        raise UserError(f"{run.path} holds no samples yet; `sipo generate {run.path} --out ...` makes some.")
    return found


def _of_geneval(root: Path, metadata: Path) -> Iterable[Sample]:
    entry, folder = read_metadata(metadata, judged=False)[0], metadata.parent / "samples"
    known = {key: value for key, value in entry.items() if key != "prompt"} or None
    for number, file in enumerate(media_files(folder) if folder.is_dir() else []):
        yield Sample(file.relative_to(root).as_posix(), entry["prompt"], number, known)


def _with_prompts(folder: Path, prompts: str) -> list[Sample]:
    items = read_prompts(prompts)
    named = [(item.metadata or {}).get("file") for item in items]
    if all(isinstance(name, str) for name in named):
        twice = [name for i, name in enumerate(named) if name in named[:i]]
        if twice:
            raise UserError(f"{prompts} names {twice[0]} twice; each file has one prompt.")
        known = [{k: v for k, v in (item.metadata or {}).items() if k != "file"} or None for item in items]
        rows = zip(named, items, known, strict=True)
        return [Sample(str(name), item.prompt, item.seed, metadata, _source(item)) for name, item, metadata in rows]
    if any(name is not None for name in named):
        missing = next(i for i, name in enumerate(named) if not isinstance(name, str))
        raise UserError(f'{prompts}, prompt {missing + 1}: no text under "file", while others have one.')
    files = media_files(folder)
    each, rest = divmod(len(files), len(items))
    if not files or rest:
        raise UserError(
            f"{folder} holds {len(files)} pictures or videos and {prompts} {len(items)} prompts: they pair up in order "
            'where there are equally many for each prompt. Else name the files: a .jsonl of {"file", "prompt"}.'
        )
    return [
        Sample(file.name, items[i // each].prompt, i % each, items[i // each].metadata) for i, file in enumerate(files)
    ]


def _source(item: PromptItem) -> str | None:
    """The picture that a medium was made of; a text under "source" that is no file means something else."""
    source = item.source
    return str(source.absolute()) if isinstance(source, Path) and source.is_file() else None


def media_files(folder: Path) -> list[Path]:
    """Pictures and videos in the order of their names; the picture beside a video of its name is its contact sheet."""
    files = [file for file in visible(folder, folder.iterdir()) if file.is_file()]
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    sheets = {video.stem for video in videos}
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES and file.stem not in sheets]
    return sorted([*videos, *pictures], key=lambda file: natural_order(file.name))
