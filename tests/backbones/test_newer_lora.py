"""LoRA of the newer families out and in: the names of each program by its key rules, transcribed here, and diffusers' loader."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from support.newer_checkpoints import NEWER
from support.pipelines import load_lora

from sipo.backbones import load_backbone
from sipo.backbones.lora import FILE, add_adapters, read_lora
from sipo.config import ModelConfig
from sipo.errors import UserError

ALPHA, RANK = 16.0, 4
MORE = {
    "sd3": ["ff.net.0.proj", "ff.net.2", "ff_context.net.2", "norm1.linear", "attn2.to_q", "attn2.to_out.0"],
    "qwen-image": ["add_q_proj", "to_add_out", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.2", "img_mod.1"],
    "flux2-klein": [
        "add_q_proj",
        "to_add_out",
        "ff.linear_in",
        "ff_context.linear_out",
        "single_stream_modulation.linear",
    ],
    "z-image": ["feed_forward.w1", "feed_forward.w2", "layers.0.adaLN_modulation.0"],
    "wan2.2-5b": ["ffn.net.0.proj", "ffn.net.2", "time_embedder.linear_1", "time_proj", "text_embedder.linear_2"],
    "wan2.2-14b": ["ffn.net.0.proj", "ffn.net.2"],
    "ltx2": [
        "ff.net.0.proj",
        "ff.net.2",
        "proj_in",
        "time_embed.linear",
        "timestep_embedder.linear_1",
        "audio_proj_in",
        "audio_attn1.to_q",
        "audio_to_video_attn.to_k",
        "audio_time_embed.linear",
        "caption_projection.linear_2",
    ],
    "hunyuan-video-1.5": ["add_q_proj", "to_add_out", "ff.net.0.proj", "ff_context.net.2", "norm1.linear", "linear_3"],
}
# Of all others three; the key rules of other programs were not verified.
FORMS = {"hunyuan-video-1.5": ("diffusers",), "ltx2": ("diffusers", "comfyui")}

# Stability-AI/sd3.5: mmditx.py, as kohya-ss/sd-scripts: library/sd3_models.py
SD3 = [
    f"joint_blocks.{n}.{stream}_block.{module}"
    for n in (0, 1)
    for stream in ("x", "context")
    for module in ("attn.qkv", "attn.proj", "attn2.qkv", "attn2.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
]
# QwenLM/Qwen-Image's names are diffusers', as kohya-ss/musubi-tuner: qwen_image/qwen_image_model.py
QWEN_IMAGE = [
    f"transformer_blocks.{n}.{module}"
    for n in (0, 1)
    for module in ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.to_add_out",
                   "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.2", "img_mod.1")
]  # fmt: skip
# kohya-ss/musubi-tuner: zimage/zimage_model.py
Z_IMAGE = [
    f"{blocks}.{n}.{module}"
    for blocks, n in (("layers", 0), ("layers", 1), ("noise_refiner", 0), ("context_refiner", 0))
    for module in ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "feed_forward.w1",
                   "feed_forward.w2", "adaLN_modulation.0")
]  # fmt: skip
# black-forest-labs/flux2: src/flux2/model.py
FLUX2 = [
    f"double_blocks.0.{stream}_{module}"
    for stream in ("img", "txt")
    for module in ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")
]
FLUX2 += ["single_blocks.0.linear1", "single_blocks.0.linear2", "single_stream_modulation.lin"]
# Wan-Video/Wan2.2: wan/modules/model.py, as Wan2.1's and kohya-ss/musubi-tuner's wan/modules/model.py
WAN = [
    f"blocks.{n}.{module}"
    for n in (0, 1)
    for module in (*(f"{kind}_attn.{letter}" for kind in ("self", "cross") for letter in "qkvo"), "ffn.0", "ffn.2")
]
WAN += ["time_embedding.0", "time_projection.1", "text_embedding.2"]
# Lightricks/LTX-2: ltx-core, model/transformer; the names by which its own trainer writes LoRA behind `diffusion_model.`
LTX2 = [
    f"transformer_blocks.{n}.{module}"
    for n in (0, 1)
    for module in (*(f"attn{k}.{name}" for k in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")), "ff.net.0.proj",
                   "ff.net.2", "audio_attn1.to_q", "audio_to_video_attn.to_k")
] + [
    f"{module}.emb.timestep_embedder.linear_1"
    for module in ("adaln_single", "audio_adaln_single", "av_ca_video_scale_shift_adaln_single", "av_ca_audio_scale_shift_adaln_single",
                   "av_ca_a2v_gate_adaln_single", "av_ca_v2a_gate_adaln_single")
] + ["patchify_proj", "audio_patchify_proj", "adaln_single.linear", "audio_adaln_single.linear", "caption_projection.linear_2",
     "audio_caption_projection.linear_2"]  # fmt: skip
ORIGINAL = {
    "sd3": SD3, "qwen-image": QWEN_IMAGE, "z-image": Z_IMAGE, "flux2-klein": FLUX2, "wan2.2-5b": WAN, "wan2.2-14b": WAN,
    "ltx2": LTX2,
}  # fmt: skip


def known_keys(name: str, form: str, adapted: set[str]) -> set[str]:
    """What the program reads: ComfyUI's comfy/lora.py, kohya's LoRANetwork."""
    if form == "comfyui" and name.startswith(("wan", "ltx")):  # the original names behind `diffusion_model.`
        return {f"diffusion_model.{module}" for module in ORIGINAL[name]}
    if form == "comfyui":  # model_lora_keys_unet: diffusers' names behind `transformer.`
        return {f"transformer.{module}" for module in adapted}
    return {f"lora_unet_{module.replace('.', '_')}" for module in ORIGINAL[name]}


@pytest.mark.parametrize("name", NEWER)
def test_every_form_has_its_program_s_names_and_is_read_as_the_same_change(tiny_family, tmp_path, name):
    """Of every denoiser; those after the first have a folder of their own."""
    folder = tiny_family(name)
    backbone = load_backbone(ModelConfig(str(folder)))
    parts = list(backbone.family.denoisers)
    base = {key: weight.clone() for key, weight in backbone.denoiser.state_dict().items()}
    torch.manual_seed(0)
    adapters = add_adapters(backbone.denoiser, [*backbone.lora_targets, *MORE.get(name, [])], RANK, ALPHA)
    for weight in adapters.values():
        torch.nn.init.normal_(weight.data, std=0.2)
    weights = {key: weight.detach() for key, weight in adapters.items()}
    adapted = {key.split(".lora_")[0] for key in weights}

    changed = {}
    for form in FORMS.get(name, ("diffusers", "comfyui", "kohya")):
        backbone.save_lora(tmp_path / form, weights, form)
        files = [tmp_path / form / ("" if part == parts[0] else part) / FILE for part in parts]
        assert sorted((tmp_path / form).rglob("*.safetensors")) == sorted(files)
        for file in files if form != "diffusers" else ():
            tensors = load_file(file)
            stems = {key.split(".lora_")[0] for key in tensors if not key.endswith(".alpha")}
            assert stems <= known_keys(name, form, adapted)
            assert all(f"{stem}.alpha" in tensors for stem in stems)
        changed[form] = load_backbone(ModelConfig(str(folder), lora=str(tmp_path / form))).denoiser.state_dict()

    theirs = fused(folder, tmp_path / "diffusers", parts)
    for form, ours in changed.items():
        for key, weight in ours.items():
            torch.testing.assert_close(weight, theirs[key], atol=1e-5, rtol=1e-5, msg=f"{form}: {key}")
    assert sum(not theirs[key].equal(base[key]) for key in base) == len(adapted)

    plain = load_backbone(ModelConfig(str(folder)))
    found = read_lora(plain.family.denoisers, plain.denoiser, tmp_path / "diffusers", ALPHA)
    assert found.keys() == weights.keys()
    assert all(found[key].equal(weights[key]) for key in found)


def fused(base: Path, lora: Path, parts: list[str]) -> dict[str, torch.Tensor]:
    """The denoisers' weights, by their names in ours, after plain diffusers has fused the files."""
    pipeline = DiffusionPipeline.from_pretrained(base)
    load_lora(pipeline, lora)
    for part in parts[1:]:
        pipeline.load_lora_weights(lora / part, **{f"load_into_{part}": True})
    if hasattr(pipeline, "fuse_lora"):
        pipeline.fuse_lora(components=parts)
        pipeline.unload_lora_weights()
    else:
        pipeline.transformer.fuse_lora()
        pipeline.transformer.unload_lora()
    prefixes = [f"networks.{part}." if len(parts) > 1 else "" for part in parts]
    networks = [getattr(pipeline, part).state_dict() for part in parts]
    return {
        prefix + key: weight for prefix, each in zip(prefixes, networks, strict=True) for key, weight in each.items()
    }


@pytest.mark.parametrize("form", ["diffusers", "comfyui", "kohya"])
def test_a_lora_for_one_of_two_denoisers_is_refused(tiny_family, tmp_path, form):
    backbone = load_backbone(ModelConfig(str(tiny_family("wan2.2-14b"))))
    weights = add_adapters(backbone.denoiser, backbone.lora_targets, RANK, ALPHA)
    backbone.save_lora(tmp_path, {key: weight.detach() for key, weight in weights.items()}, form)
    load_backbone(ModelConfig(str(tiny_family("wan2.2-14b")), lora=str(tmp_path / FILE)))  # with its sibling beside it
    (tmp_path / "transformer_2" / FILE).unlink()
    for path in (tmp_path, tmp_path / FILE):
        with pytest.raises(UserError, match=f"for the transformer, and lacks transformer_2/{FILE} beside it"):
            load_backbone(ModelConfig(str(tiny_family("wan2.2-14b")), lora=str(path)))


@pytest.mark.parametrize(
    ("name", "form"), [("hunyuan-video-1.5", "comfyui"), ("hunyuan-video-1.5", "kohya"), ("ltx2", "kohya")]
)
def test_forms_that_were_not_verified_are_refused(tiny_family, tmp_path, name, form):
    backbone = load_backbone(ModelConfig(str(tiny_family(name))))
    weights = add_adapters(backbone.denoiser, backbone.lora_targets, RANK, ALPHA)
    kind = type(backbone.denoiser).__name__
    with pytest.raises(UserError, match=rf"{form} has no name for \d+ .* {kind}, such as"):
        backbone.save_lora(tmp_path, {key: weight.detach() for key, weight in weights.items()}, form)


def test_rows_that_diffusers_keeps_in_another_order_have_no_name_elsewhere(tiny_family, tmp_path):
    """The last context norm of Stable Diffusion 3: scale before shift in diffusers, shift before scale in the original."""
    backbone = load_backbone(ModelConfig(str(tiny_family("sd3"))))
    weights = add_adapters(backbone.denoiser, ["norm1_context.linear"], RANK, ALPHA)
    with pytest.raises(UserError, match=r"kohya has no name for 1 .* transformer_blocks\.1\.norm1_context\.linear"):
        backbone.save_lora(tmp_path, {key: weight.detach() for key, weight in weights.items()}, "kohya")
