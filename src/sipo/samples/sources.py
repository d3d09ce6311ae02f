"""Sources of samples: the pictures that some models make their media of, one for each prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import MediaFile
from sipo.data.media.load import load_pixels
from sipo.errors import UserError
from sipo.samples.folder import PromptItem
from sipo.samples.trajectory import Traced
from sipo.size import Size


@dataclass(frozen=True)
class SourceSampler:
    """A sampler of a model that reads a source. draw: (prompts, seeds, sources (B, 3, H, W) in [-1, 1] of `size`) -> media,
    each with its trajectory if that is kept.
    """

    size: Size
    draw: Callable[[list[str], list[int], Tensor], Sequence[Image.Image | list[Image.Image] | Traced]]

    def __call__(
        self, prompts: list[str], seeds: list[int], sources: Sequence[MediaFile]
    ) -> Sequence[Image.Image | list[Image.Image] | Traced]:
        return self.draw(prompts, seeds, torch.stack([source_pixels(source, self.size) for source in sources]))


def source_pixels(source: MediaFile, size: Size) -> Tensor:
    """(3, H, W) in [-1, 1]: scaled to cover the size and cropped at the centre, as in training. Raises BadRow."""
    return load_pixels(source, size).media


def require_sources(items: Sequence[PromptItem], size: Size) -> None:
    """Raises UserError, with the prompt, where a source is missing or cannot be read."""
    first: dict[MediaFile, int] = {}
    for number, item in enumerate(items, start=1):
        if item.source is None:
            raise UserError(
                f"prompt {number} ({item.prompt[:60]!r}) has no source, a picture that this model reads; expected a .jsonl file "
                'of prompts whose lines have "prompt" and "source", a path'
            )
        first.setdefault(item.source, number)
    for source, number in first.items():
        try:
            source_pixels(source, size)
        except BadRow as error:
            raise UserError(f"the source of prompt {number}: {error}") from error
