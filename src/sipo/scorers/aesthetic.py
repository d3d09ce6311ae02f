"""LAION's aesthetic predictor: five linear layers on CLIP ViT-L/14; christophschuhmann/improved-aesthetic-predictor."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, nn

from sipo.errors import UserError
from sipo.scorers.base import Medium, Metadata, in_batches
from sipo.scorers.clip import VIT_L, Clip, load_clip
from sipo.scorers.network import NetworkScorer
from sipo.scorers.preprocess import crop_pixels
from sipo.scorers.weights import find_file, read_tensors

# The official file of the GitHub repository, and the name under which TRL publishes the same on the hub.
FILES = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")


class AestheticHead(nn.Module):
    """(B, width) unit features -> (B, 1). No activations, so in evaluation mode it is one affine map.

    Loads the official state dict (`layers.0`, `.2`, `.4`, `.6`, `.7`). ImageReward's head has the same shape.
    """

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2),
            nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1),
            nn.Linear(64, 16), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def load_head(tensors: dict[str, Tensor], source: object) -> AestheticHead:
    """A head in evaluation mode, always float32. Raises UserError for other tensors than those of a head."""
    first = tensors.get("layers.0.weight")
    if first is None or first.ndim != 2:
        raise UserError(f"{source} is not a linear head: expected layers.0.weight, .2, .4, .6 and .7")
    head = AestheticHead(first.shape[1])
    try:
        head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"{source} is not a linear head: {' '.join(str(error).split())}") from error
    return head.eval().requires_grad_(False)


@dataclass(frozen=True)
class LaionAesthetic(NetworkScorer):
    """LAION's aesthetics: head(CLIP image features / their length), about 1 to 10; the prompt plays no part.

    weights: the head's file, a folder with it, or a hub id. clip: the CLIP whose features it reads. `dtype` is that of
    CLIP. Raises UserError for weights that do not load or fit, at the first call.
    """

    weights: str = "trl-lib/ddpo-aesthetic-predictor"
    clip: str = VIT_L
    name: ClassVar[str] = "aesthetic"

    @cached_property
    def _loaded(self) -> tuple[Clip, AestheticHead]:
        path = find_file(self.weights, *FILES)
        head = load_head(read_tensors(path), path)
        clip = load_clip(self.clip, self.device, self.dtype)
        width, found = head.layers[0].in_features, clip.model.config.projection_dim
        if width != found:
            raise UserError(f"{path} takes features of width {width}, and {self.clip} has {found}")
        return clip, head.to(clip.model.device)

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media)

    @torch.inference_mode()
    def _batch(self, media: list[Medium]) -> list[float]:
        clip, head = self._loaded
        return head(clip.image_features(media, crop_pixels))[:, 0].tolist()
