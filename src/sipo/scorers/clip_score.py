"""CLIP score: how well a picture fits its prompt; Hessel et al. 2021, with torchmetrics' scale."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from sipo.scorers.base import Medium, Metadata, in_batches
from sipo.scorers.clip import VIT_L, Clip, load_clip, processor_pixels
from sipo.scorers.network import NetworkScorer
from sipo.scorers.weights import companion


@dataclass(frozen=True)
class ClipScore(NetworkScorer):
    """CLIP score: 100 * max(cos(image, text), 0), in [0, 100]; about 20 to 35 for pictures of their prompts.

    That is torchmetrics' scale (`CLIPScore`). The paper's own is 2.5 * max(cos, 0), a fortieth of it; some report the
    plain cosine, a hundredth. weights: a CLIP folder in transformers' layout or a hub id. tokenizer: as in PickScore.
    """

    weights: str = VIT_L
    tokenizer: str | None = None
    name: ClassVar[str] = "clip"

    @cached_property
    def _clip(self) -> Clip:
        tokenizer = companion(self.weights, self.tokenizer, self.weights)
        return load_clip(self.weights, self.device, self.dtype, tokenizer)

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media, prompts)

    def _batch(self, media: list[Medium], prompts: list[str]) -> list[float]:
        return (100 * self._clip.cosine(media, prompts, processor_pixels).clamp(min=0)).tolist()
