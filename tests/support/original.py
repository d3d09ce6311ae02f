"""A tiny diffusers checkpoint of Stable Diffusion's kind as one file, under the names of the original code.

The names are written out here from CompVis/stable-diffusion's modules, apart from the package's own table.
"""

import re
from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

RESNET = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
          ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]  # fmt: skip
UNET = {  # of `support.checkpoints.unet`: two levels of one layer
    "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op", "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0", "up_blocks.1.attentions.1": "output_blocks.3.1",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def unet_name(name: str) -> str:
    """The original name of a module or tensor of the tiny U-Net."""
    begin = max((key for key in UNET if name == key or name.startswith(key + ".")), key=len)
    rest = name.removeprefix(begin)
    if "resnets" in begin:
        for ours, theirs in RESNET:
            rest = rest.replace(f".{ours}", f".{theirs}")
    return UNET[begin] + rest


def vae_name(name: str) -> str:
    """The same of the tiny VAE: two levels of one layer, so that the decoder's are counted from the other end."""
    for ours, theirs in [("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
                         ("mid_block.attentions.0", "mid.attn_1"), ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut"),
                         ("downsamplers.0", "downsample"), ("upsamplers.0", "upsample"), ("resnets", "block"),
                         ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")]:  # fmt: skip
        name = name.replace(ours, theirs)
    name = name.replace("down_blocks", "down")
    return re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{1 - int(found[1])}", name)


def single_file(folder: Path, out: Path, with_vae: bool = True) -> Path:
    """The checkpoint of a folder as one file."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    tensors = {f"model.diffusion_model.{unet_name(k)}": v for k, v in pipeline.unet.state_dict().items()}
    if with_vae:
        for name, value in pipeline.vae.state_dict().items():
            theirs = vae_name(name)
            is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", theirs)
            tensors[f"first_stage_model.{theirs}"] = value[:, :, None, None] if is_attention else value
    for name, value in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, out)
    return out
