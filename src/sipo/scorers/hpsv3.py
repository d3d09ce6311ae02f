"""Human Preference Score v3: Qwen2-VL-7B with a head on a special token; Ma et al. 2025, MizzenAI/HPSv3."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from torch import Tensor, nn

from sipo.errors import UserError
from sipo.scorers import texts
from sipo.scorers.base import Medium, Metadata, in_batches, one_picture
from sipo.scorers.network import NetworkScorer
from sipo.scorers.qwen_vl import PICTURE, RewardModel, load_reward_model, picture_patches, quiet
from sipo.scorers.weights import find_file, read_tensors

PIXELS = 256 * 28 * 28  # of every picture
TOKEN = "<|Reward|>"


@dataclass(frozen=True)
class HPSv3(NetworkScorer):
    """Human Preference Score v3: the mean mu of its Gaussian for how much people like a picture, about -5 to 14.

    score = MLP(last hidden state at <|Reward|>)[0], the MLP in float32 (its other output, log sigma, is not used).

    weights: HPSv3.safetensors (15 GB), a folder or hub repository with it. base: a folder or hub id with the config and
    tokenizer of Qwen2-VL-7B-Instruct; its weights are not read. Raises UserError for weights that do not load.
    """

    weights: str = "MizzenAI/HPSv3"
    base: str = "Qwen/Qwen2-VL-7B-Instruct"
    dtype: str = field(default="bfloat16", kw_only=True)
    name: ClassVar[str] = "hpsv3"

    @cached_property
    def _model(self) -> RewardModel:
        path = find_file(self.weights, "HPSv3.safetensors")
        tensors = read_tensors(path)
        return load_reward_model(
            tensors, load_head(tensors, path), [TOKEN], self.base, str(path), self.device, self.dtype
        )

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return in_batches(self.batch_size, self._batch, media, prompts)

    def _batch(self, media: list[Medium], prompts: list[str]) -> list[float]:
        seen = [picture_patches(one_picture(medium), PIXELS, PIXELS) for medium in media]
        asked = [texts.read("hpsv3").replace("{prompt}", quiet(prompt)) for prompt in prompts]
        return self._model.values(seen, asked, PICTURE)[:, 0, 0].tolist()


def load_head(tensors: dict[str, Tensor], source: object) -> nn.Sequential:
    """Linear, ReLU, dropout, Linear, ReLU, Linear in float32, of the tensors rm_head.*. Raises UserError."""
    found = {
        name.removeprefix("rm_head."): each.float() for name, each in tensors.items() if name.startswith("rm_head.")
    }
    try:
        sizes = [found[f"{place}.weight"].shape for place in (0, 3, 5)]
        first, second, last = (nn.Linear(size[1], size[0]) for size in sizes)
        head = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.05), second, nn.ReLU(), last)
        head.load_state_dict(found)
    except (KeyError, RuntimeError, IndexError) as error:
        raise UserError(
            f"weights: {source} is not HPSv3: rm_head is not its head of three linear layers ({error})"
        ) from None
    return head
