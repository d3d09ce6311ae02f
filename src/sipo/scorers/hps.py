"""Human Preference Score v2 and v2.1: CLIP ViT-H/14, fine-tuned; Wu et al. 2023, tgxs002/HPSv2."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from transformers import CLIPTokenizer

from sipo.errors import UsageError
from sipo.scorers.base import Medium, Metadata, in_batches
from sipo.scorers.clip import VIT_H, Clip, load_clip
from sipo.scorers.network import DTYPES, NetworkScorer, resolve_device
from sipo.scorers.open_clip import load_open_clip
from sipo.scorers.preprocess import pad_pixels
from sipo.scorers.weights import companion, find_file, load_tokenizer, read_tensors

FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}  # of xswu/HPSv2


@dataclass(frozen=True)
class HPSv2(NetworkScorer):
    """Human Preference Score v2: cos(image, text), without a logit scale, about .2 to .35.

    The numbers of versions 2.0 and 2.1 are not comparable.

    weights: an open_clip checkpoint (.pt or .safetensors), a folder with it, a hub id, or a folder with a CLIP in
    transformers' layout. version: which file of a folder or repository, and what the scores are called. antialias:
    see `pad_pixels`. tokenizer: default that of ViT-H/14. Raises UserError for weights that do not load.
    """

    weights: str = "xswu/HPSv2"
    version: Literal["2.0", "2.1"] = "2.0"
    antialias: bool = True
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version not in FILES:
            raise UsageError(f"version: {self.version!r} is none of {', '.join(FILES)}")

    @property
    def name(self) -> str:
        return "hpsv2" if self.version == "2.0" else "hpsv2.1"

    @cached_property
    def _clip(self) -> Clip:
        tokenizer = companion(self.weights, self.tokenizer, VIT_H)
        if (Path(self.weights).expanduser() / "config.json").is_file():
            return load_clip(self.weights, self.device, self.dtype, tokenizer)
        path = find_file(self.weights, FILES[self.version])
        model = load_open_clip(read_tensors(path), path, DTYPES[self.dtype])
        return Clip(model.to(resolve_device(self.device)), load_tokenizer(CLIPTokenizer, tokenizer))

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media, prompts)

    def _batch(self, media: list[Medium], prompts: list[str]) -> list[float]:
        return self._clip.cosine(media, prompts, partial(pad_pixels, antialias=self.antialias)).tolist()


def hpsv2_1(**settings: Any) -> HPSv2:
    """Human Preference Score v2.1: the same network, other weights."""
    return HPSv2(version="2.1", **settings)
