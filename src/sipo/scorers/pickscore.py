"""PickScore: CLIP ViT-H/14, fine-tuned on Pick-a-Pic; Kirstain et al. 2023, yuvalkirstain/PickScore."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from sipo.scorers.base import Medium, Metadata, in_batches
from sipo.scorers.clip import VIT_H, Clip, load_clip, processor_pixels
from sipo.scorers.network import NetworkScorer
from sipo.scorers.weights import companion


@dataclass(frozen=True)
class PickScore(NetworkScorer):
    """PickScore: exp(logit_scale) * cos(image, text), about 17 to 25 for pictures of their prompts.

    Not divided by 26, as some training code does. weights: a CLIP folder in transformers' layout or a hub id. tokenizer: folder or hub id; default: in the weights'
    folder, else that of ViT-H/14. Raises UserError for weights that do not load, at the first call.
    """

    weights: str = "yuvalkirstain/PickScore_v1"
    tokenizer: str | None = None
    name: ClassVar[str] = "pickscore"

    @cached_property
    def _clip(self) -> Clip:
        return load_clip(self.weights, self.device, self.dtype, companion(self.weights, self.tokenizer, VIT_H))

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media, prompts)

    def _batch(self, media: list[Medium], prompts: list[str]) -> list[float]:
        scale = self._clip.model.logit_scale.float().exp()
        return (scale * self._clip.cosine(media, prompts, processor_pixels)).tolist()
