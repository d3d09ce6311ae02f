"""Stage 2: the text encoder learns from captions and scenes what stands where, before there is a denoiser.

Stable Diffusion's text encoder, too, knows the meaning of words and of their order before the denoiser is trained. Here
each of the 16 tokens that follow the caption answers for one cell of a 4 x 4 grid over the picture: which kind of thing,
if any, covers the cell's centre. The denoiser's cross-attention can then look up each place, see `lookup`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sipo.mini.cells import AFTER, GRID, KINDS, what_stands_where
from sipo.mini.networks import TEXT_WIDTH, make_text_encoder
from sipo.mini.pictures import draw_scene
from sipo.mini.recipe import OfPictures
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.training import train


def make_reader() -> nn.ModuleDict:
    """A fresh "text_encoder", and the "head" that reads a cell's kind from the state of its token."""
    head = nn.Linear(TEXT_WIDTH, len(KINDS) + 1)
    return nn.ModuleDict({"text_encoder": make_text_encoder(make_tokenizer()), "head": head})


def reading_loss(head: nn.Module, states: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy (scalar) of the kinds `cells` (B, 16), -100 where unknown, by the encoder's states (B, 32, width)."""
    logits = head(states[:, AFTER : AFTER + GRID**2]).float()  # (B, 16, kinds + 1)
    return F.cross_entropy(logits.flatten(0, 1), cells.flatten())


def train_text(
    recipe: OfPictures,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    device: str,
    autocast: bool,
    save_every: int = 100,
) -> nn.ModuleDict:
    """Train, or resume from `folder`, to the recipe's last step; returns the reader."""
    torch.manual_seed(recipe.seed)
    reader, tokenizer = make_reader().to(device), make_tokenizer()

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([recipe.seed, 4, step])
        scenes, prompts = zip(*[draw_scene(rng, recipe.mixture) for _ in range(recipe.text.batch_size)], strict=True)
        cells = torch.from_numpy(np.stack([what_stands_where(scene) for scene in scenes])).to(device)  # (B, 16)
        tokens = tokenize(tokenizer, [prompt["prompt"] for prompt in prompts]).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return {"loss": reading_loss(reader["head"], reader["text_encoder"](tokens).last_hidden_state, cells)}

    trained = train(reader, recipe.text, loss, folder / "state.pt", report, save_every=save_every)
    assert isinstance(trained, nn.ModuleDict)
    return trained
