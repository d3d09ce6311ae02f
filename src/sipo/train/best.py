"""The best weights so far by a held-out score: what was scored, which step leads, and the files of weights that may win."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sipo.config import Config, KeepBest
from sipo.data.media.kinds import MediaFile
from sipo.errors import UsageError, UserError
from sipo.files import removed_on_error, room_in, sync_directory
from sipo.registry import DEFAULT
from sipo.run import RunDir
from sipo.run.record import best_score
from sipo.samples.folder import PromptItem
from sipo.samples.prompts import read_prompts
from sipo.scorers.base import FileScorer, Scorer
from sipo.scorers.choice import choose_one
from sipo.tensors import load_tensors


class Best:
    """The scores up to now, which metrics.jsonl holds too, and `best/<step>.safetensors`: the weights of a best score.

    A file stays until no kept checkpoint needs it, so a run that resumes after any of them ends with the same weights.
    """

    def __init__(self, run: RunDir, config: KeepBest, prompts: Sequence[PromptItem], start: int):
        """Resume after step `start`. Raises UserError for a scorer that cannot be made."""
        self.config, self.prompts, self.folder = config, prompts, run.best
        self.scorer: Scorer | FileScorer
        (self.scorer,) = choose_one(config.scorer, config.worker).load_all()
        self.lines = [line for line in run.read_metrics("score") if line["step"] <= start] if start else []

    def add(self, line: Mapping[str, Any]) -> bool:
        """Add the score of a step; whether it is the best one."""
        self.lines.append(dict(line))
        return best_score(self.lines) == line

    @property
    def step(self) -> int:
        """That of the best score."""
        best = best_score(self.lines)
        assert best is not None, "step 0 is scored before any other"
        return best["step"]

    @property
    def exhausted(self) -> bool:
        """Whether `patience` scores in a row have brought no new best."""
        patience = self.config.patience
        return patience is not None and sum(line["step"] > self.step for line in self.lines) >= patience

    def write(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep these weights, unsharded."""
        self.folder.mkdir(exist_ok=True)
        temporary = self.folder / f".{step:06d}.tmp"
        with room_in(self.folder, sum(weight.nbytes for weight in weights.values())), removed_on_error(temporary):
            save_file({name: weight.contiguous() for name, weight in weights.items()}, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, self._path(step))
        sync_directory(self.folder)

    def read(self) -> dict[str, Tensor]:
        """The best weights. Raises UserError where their file is missing."""
        return read_best(self.folder, self.step)

    def drop(self, checkpoints: Iterable[int]) -> None:
        """Remove the weights that a run resumed after any of these checkpoints could not choose."""
        seen = ([line for line in self.lines if line["step"] <= step] for step in checkpoints)
        needed = {best["step"] for lines in seen if (best := best_score(lines))}
        for path in self.folder.glob("*.safetensors"):
            if int(path.stem) not in needed:
                path.unlink()

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}.safetensors"


def read_best(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of a step in a run's folder of best weights. Raises UserError where their file is missing."""
    path = folder / f"{step:06d}.safetensors"
    if not path.is_file():
        raise UserError(f"{path} is missing: the weights of step {step}, whose held-out score is the best one")
    return load_tensors(path)


def require_held_out(config: Config) -> None:
    """UsageError where `train.keep_best` names no scorer that exists, or no prompts that training does not see."""
    keep = config.train.keep_best
    if keep is None:
        return
    choose_one(keep.scorer, keep.worker)
    if keep.prompts is None and not config.data.validation:
        raise UsageError(
            "train.keep_best: there are no held-out prompts; give train.keep_best.prompts a file "
            f"(or {DEFAULT}), or hold out pairs with data.validation"
        )
    if keep.prompts is not None:
        read_prompts(keep.prompts)


def prompts_to_score(keep: KeepBest, of_pairs: Mapping[str, MediaFile | None]) -> list[PromptItem]:
    """The prompts of the config's file, else the first of the held-out pairs, with their sources; a seed an image."""
    if keep.prompts:
        return read_prompts(keep.prompts, keep.num_prompts, keep.seed, keep.images_per_prompt)
    first = list(of_pairs.items())[: keep.num_prompts]
    repeated = [each for each in first for _ in range(keep.images_per_prompt)]
    return [PromptItem(prompt, keep.seed + i, source=source) for i, (prompt, source) in enumerate(repeated)]
