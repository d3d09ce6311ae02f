"""Tiny diffusers checkpoints as one file, under the names of the original code.

The names are written out here from the modules of CompVis/stable-diffusion, black-forest-labs/flux and Wan-Video/Wan2.1, apart from
the package's own tables.
"""

import re
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel, StableDiffusionPipeline, WanTransformer3DModel
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


def wan_file(folder: Path, out: Path, prefix: str = "") -> Path:
    """Wan's transformer alone, as it is published; some programs put a prefix before every name."""
    network = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    tensors = {}
    for name, value in network.state_dict().items():
        for ours, theirs in [("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
                             ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
                             ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
                             ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
                             ("condition_embedder.time_proj", "time_projection.1"), ("attn1", "self_attn"), ("attn2", "cross_attn"),
                             ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"), ("ffn.net.0.proj", "ffn.0"),
                             ("ffn.net.2", "ffn.2"), ("norm2", "norm3"), ("proj_out", "head.head")]:  # fmt: skip
            name = name.replace(ours, theirs)
        name = name.replace("scale_shift_table", "modulation" if name.startswith("blocks") else "head.modulation")
        tensors[prefix + name] = value.contiguous().clone()
    save_file(tensors, out)
    return out


def flux_file(network: FluxTransformer2DModel, out: Path) -> Path:
    """FLUX's transformer alone, with as many blocks as it has."""
    own, tensors = network.state_dict(), {}

    def put(theirs: str, *ours: str) -> None:
        for leaf in ("weight", "bias"):
            tensors[f"{theirs}.{leaf}"] = torch.cat([own[f"{name}.{leaf}"] for name in ours])

    for theirs, ours in [
        ("time_in", "timestep_embedder"),
        ("vector_in", "text_embedder"),
        ("guidance_in", "guidance_embedder"),
    ]:
        put(f"{theirs}.in_layer", f"time_text_embed.{ours}.linear_1")
        put(f"{theirs}.out_layer", f"time_text_embed.{ours}.linear_2")
    put("img_in", "x_embedder")
    put("txt_in", "context_embedder")
    put("final_layer.linear", "proj_out")
    for leaf in ("weight", "bias"):  # shift and scale change places
        scale, shift = own[f"norm_out.linear.{leaf}"].chunk(2)
        tensors[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    for n in range(network.config.num_layers):
        block, to = f"transformer_blocks.{n}", f"double_blocks.{n}"
        for side, qkv, norms, out_name, mlp, mod in [
            ("img", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), "to_out.0", "ff", "norm1"),
            ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), ("norm_added_q", "norm_added_k"), "to_add_out", "ff_context",
             "norm1_context"),
        ]:  # fmt: skip
            put(f"{to}.{side}_attn.qkv", *(f"{block}.attn.{name}" for name in qkv))
            put(f"{to}.{side}_attn.proj", f"{block}.attn.{out_name}")
            put(f"{to}.{side}_mlp.0", f"{block}.{mlp}.net.0.proj")
            put(f"{to}.{side}_mlp.2", f"{block}.{mlp}.net.2")
            put(f"{to}.{side}_mod.lin", f"{block}.{mod}.linear")
            for theirs, ours in zip(("query_norm", "key_norm"), norms, strict=True):
                tensors[f"{to}.{side}_attn.norm.{theirs}.scale"] = own[f"{block}.attn.{ours}.weight"]
    for n in range(network.config.num_single_layers):
        block, to = f"single_transformer_blocks.{n}", f"single_blocks.{n}"
        put(f"{to}.linear1", *(f"{block}.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")))
        put(f"{to}.linear2", f"{block}.proj_out")
        put(f"{to}.modulation.lin", f"{block}.norm.linear")
        for theirs, ours in (("query_norm", "norm_q"), ("key_norm", "norm_k")):
            tensors[f"{to}.norm.{theirs}.scale"] = own[f"{block}.attn.{ours}.weight"]
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, out)
    return out


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two networks have the same weights under the same names."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
