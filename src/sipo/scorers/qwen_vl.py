"""Qwen2-VL as HPSv3 and VideoReward use it: pictures or frames and a text in, a linear head's values at special tokens out.

Both were trained on transformers 4.45 with a forward of their own that passes no positions, so that text and picture alike
are counted 0, 1, 2, ... on all three axes of the rotary embedding. Qwen2-VL's own positions, which newer transformers would
compute, give other scores.

Their code casts the whole model to bfloat16, the frequencies of both rotary embeddings too, which transformers otherwise
keeps in float32. At position 2,000 the fastest of them are then off by radians, and so they were in training.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from sipo.errors import UserError
from sipo.scorers.network import DTYPES, resolve_device
from sipo.scorers.preprocess import normalize, to_unit
from sipo.scorers.weights import load_model, load_tokenizer

PATCH, MERGE, TEMPORAL = 14, 2, 2  # pixels of a patch; patches a side, and frames, that become one token
FACTOR = PATCH * MERGE
PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>{seen}<|vision_end|>{text}"
    "<|im_end|>\n<|im_start|>assistant\n"
)
OLD_NAMES = (("model.language_model.", "language_model."), ("model.visual.", "visual."), ("visual.", "visual."),
             ("model.", "language_model."))  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the vision tower is given of one sample: patches (N, 3 * 2 * 14 * 14) and its grid of patches (t, h, w)."""

    patches: Tensor
    grid: tuple[int, int, int]

    @property
    def num_tokens(self) -> int:
        return math.prod(self.grid) // MERGE**2


@dataclass(frozen=True)
class RewardModel:
    """The network, its head, and a tokenizer that knows the special tokens, whose numbers are `special_ids`."""

    network: Qwen2VLModel
    head: nn.Module
    tokenizer: object
    special_ids: tuple[int, ...]

    @torch.inference_mode()
    def values(self, seen: Sequence[Seen], texts: Sequence[str], pad: str) -> Tensor:
        """The head's values at the special tokens, (B, specials, outputs) float32; each sample has all of them once.

        pad: `PICTURE` or `VIDEO`. Raises UserError for a text in which a special token is missing or stands twice.
        """
        device = self.network.device
        chats = [CHAT.format(seen=pad * each.num_tokens, text=text) for each, text in zip(seen, texts, strict=True)]
        tokens = self.tokenizer(chats, padding=True, padding_side="right", return_tensors="pt")  # pyright: ignore[reportCallIssue]
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        patches = torch.cat([each.patches for each in seen]).to(device, self.network.dtype)
        grids = torch.tensor([each.grid for each in seen], device=device)
        pictures = self.network.visual(patches, grid_thw=grids).pooler_output  # (all tokens, D)
        embedded = self.network.get_input_embeddings()(ids)
        embedded[ids == self.tokenizer.convert_tokens_to_ids(pad)] = pictures.to(embedded.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        states = self.network.language_model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        places = torch.stack([ids == number for number in self.special_ids])  # (specials, B, L)
        if not (places.sum(-1) == 1).all():
            raise UserError("a prompt holds special tokens of the model")
        at_tokens = torch.stack([states[each] for each in places], 1)  # (B, specials, D)
        return self.head(at_tokens.to(next(self.head.parameters()).dtype)).float()


def load_reward_model(
    tensors: dict[str, Tensor], head: nn.Module, specials: Sequence[str], base: str, what: str, device: str, dtype: str
) -> RewardModel:
    """The network of a reward model's state dict, with transformers' older or newer names; without its head.

    base: config and tokenizer of the Qwen2-VL that it was trained from. head: on the CPU, with its weights. Raises
    UserError for a state dict of something else.
    """
    state = rename(tensors, what)
    tokenizer = load_tokenizer(AutoTokenizer, base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(specials)})
    config, ids = load_config(base), tuple(tokenizer.convert_tokens_to_ids(list(specials)))
    rows = config.get_text_config().vocab_size = len(state["language_model.embed_tokens.weight"])
    if max(ids) >= rows:
        raise UserError(f"weights: {what} has embeddings of {rows:,} tokens, and the tokenizer of {base} has more")
    network = load_model(Qwen2VLModel, None, DTYPES[dtype], what, config=config, state_dict=state)
    round_frequencies(network)
    place = resolve_device(device)
    return RewardModel(network.to(place), head.eval().requires_grad_(False).to(place), tokenizer, ids)


def round_frequencies(network: nn.Module) -> None:
    """The frequencies of all rotary embeddings to the nearest bfloat16, whatever their dtype."""
    for name, buffer in network.named_buffers():
        if name.endswith("inv_freq"):
            buffer.copy_(buffer.bfloat16())


def load_config(base: str) -> Qwen2VLConfig:
    """Raises UserError where `base` has no config of a Qwen2-VL."""
    try:
        config = Qwen2VLConfig.from_pretrained(base)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"base: {base} has no config of a Qwen2-VL: {str(error).splitlines()[0]}") from error
    return config  # pyright: ignore[reportReturnType]


def rename(tensors: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """Names of transformers' `Qwen2VLModel`, of those of a whole model before and after 4.52; the output layer goes.

    Before: model.layers..., visual...; after: model.language_model.layers..., model.visual... Raises UserError without
    embeddings.
    """
    is_new = any(name.startswith("model.language_model.") for name in tensors)
    found = {}
    for name, tensor in tensors.items():
        old = next((pair for pair in OLD_NAMES[: 2 if is_new else None] if name.startswith(pair[0])), None)
        if old:
            found[old[1] + name.removeprefix(old[0])] = tensor
    if "language_model.embed_tokens.weight" not in found:
        raise UserError(
            f"weights: {what} is no Qwen2-VL: it holds no embeddings of tokens, but {min(tensors, default='nothing')}"
        )
    return found


def quiet(text: str) -> str:
    """A user's prompt that cannot be mistaken for the model's special tokens."""
    return re.sub(r"<(?=\|)", "< ", text)


def picture_patches(picture: Image.Image, min_pixels: int, max_pixels: int) -> Seen:
    """A picture, resized by Pillow (bicubic) to sides that are multiples of 28, near its own shape. Raises UserError."""
    size = new_size(picture.size, min_pixels, max_pixels)
    pixels = to_unit(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    return patches_of(normalize(pixels)[None].expand(TEMPORAL, -1, -1, -1))


def new_size(size: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(width, height) in multiples of 28 within the limits. Raises UserError for a side 200 times the other."""
    try:
        height, width = smart_resize(size[1], size[0], FACTOR, min_pixels, max_pixels)
    except ValueError:
        raise UserError(
            f"a picture of {size[0]} x {size[1]} pixels; a Qwen2-VL takes sides up to 200 times the other"
        ) from None
    return width, height


def patches_of(frames: Tensor) -> Seen:
    """Frames (T, 3, H, W), normalised; an odd last one is doubled. Two frames and 14 x 14 pixels make a patch; the four
    patches that become one token follow each other."""
    if len(frames) % TEMPORAL:
        frames = torch.cat([frames, frames[-1:]])
    count, _, height, width = frames.shape
    grid = (count // TEMPORAL, height // PATCH, width // PATCH)
    split = frames.reshape(
        grid[0], TEMPORAL, 3, grid[1] // MERGE, MERGE, PATCH, grid[2] // MERGE, MERGE, PATCH
    )  # fmt: skip
    return Seen(split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(math.prod(grid), -1), grid)
