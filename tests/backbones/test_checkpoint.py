"""How a checkpoint's parts are prepared."""

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from sipo.backbones.checkpoint import tiles_join


def make_vae(height: int, width: int, blocks: int) -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    kinds = {"down_block_types": ("CogVideoXDownBlock3D",) * blocks, "up_block_types": ("CogVideoXUpBlock3D",) * blocks}
    return AutoencoderKLCogVideoX(
        block_out_channels=(8,) * blocks, layers_per_block=1, latent_channels=4, norm_num_groups=4, **kinds,
        temporal_compression_ratio=2, sample_height=height, sample_width=width,
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("height", "width", "blocks", "join"),
    [(480, 720, 4, True), (64, 64, 3, False), (96, 160, 4, True), (64, 96, 3, False), (80, 80, 3, False)],
)
def test_tiles_are_used_only_where_they_join(height, width, blocks, join):
    """Golden: CogVideoX's own 480 x 720. Against diffusers: tiled latents have the size of untiled ones just where they join."""
    vae = make_vae(height, width, blocks)
    assert tiles_join(vae) is join
    if height > 100:
        return  # too large to encode in a test
    vae.enable_tiling()
    with torch.no_grad():
        shape = vae.encode(torch.zeros(1, 3, 1, height, width)).latent_dist.mean.shape
    stride = 2 ** (blocks - 1)
    assert (tuple(shape[-2:]) == (height // stride, width // stride)) is join
