"""LTX-2 against diffusers' own pipeline and network, where it differs from other families: the video alone, text, LTX-2.3.

What it shares with them is in test_newer_families.py. LTX-2.0 and LTX-2.3 differ in where texts are projected, gates, and modulation.
"""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, LTX2Pipeline, LTX2VideoTransformer3DModel
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_ltx2_lora_to_diffusers
from safetensors.torch import load_file, save_file
from support.newer_checkpoints import NEWER, ltx2
from torch import Tensor

from sipo.backbones import Backbone, load_backbone, read_architecture
from sipo.backbones.lora import FILE, add_adapters
from sipo.backbones.ltx2 import positions
from sipo.config import DataConfig, ModelConfig, PolicyConfig
from sipo.errors import UserError
from sipo.train.policy import make_policy

PROMPTS = ["a cat", 'a dog that sits on a "mat"']
DATA = NEWER["ltx2"][1]
close = torch.testing.assert_close


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[2.0, 2.3])
def checkpoint(request, tiny_family, tmp_path_factory):
    return tiny_family("ltx2") if request.param == 2.0 else ltx2(tmp_path_factory.mktemp("ltx2.3"), 2.3)


def load(folder, **data) -> Backbone:
    return load_backbone(ModelConfig(str(folder)), size=DataConfig("x", **{**DATA, **data}).size)


def unpacked(tokens: Tensor) -> Tensor:
    return LTX2Pipeline._unpack_latents(tokens, 2, 4, 4)


def call(pipeline: DiffusionPipeline, **keys) -> list[dict]:
    """Two steps of the pipeline as its authors sample, with all of its guidances; the calls of its network."""
    calls = []
    hook = pipeline.transformer.register_forward_hook(
        lambda network, args, given, output: calls.append({**given, "velocity": output[0]}), with_kwargs=True
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        PROMPTS, height=32, width=32, num_frames=5, num_inference_steps=2, spatio_temporal_guidance_blocks=[0],
        generator=torch.Generator().manual_seed(0), output_type="latent", **{"frame_rate": 16.0, **keys},
    )  # fmt: skip
    hook.remove()
    return calls


@pytest.mark.parametrize("rate", [16.0, 30.0])
@torch.no_grad()
def test_the_prediction_is_the_pipeline_s_own_of_the_video_alone(checkpoint, rate):
    """Which its guidance by modality calls for, with the audio and its text beside; other calls see the audio, and differ."""
    backbone, pipeline = load(checkpoint, fps=rate), DiffusionPipeline.from_pretrained(checkpoint)
    calls = call(pipeline, frame_rate=rate)
    alone = [each for each in calls if each["isolate_modalities"]]
    together = [each for each in calls if not each["isolate_modalities"] and len(each["timestep"]) == 4]
    assert (len(calls), len(alone), len(together)) == (6, 2, 2)
    text = backbone.encode_prompts(PROMPTS)
    for given, joint in zip(alone, together, strict=True):
        assert given["audio_hidden_states"].std() > 0.1
        assert given["encoder_attention_mask"].all()  # so that none is needed
        xt, t = unpacked(given["hidden_states"]), given["timestep"]
        prediction = backbone.predict(backbone.denoiser, xt, t, text)
        close(prediction, unpacked(given["velocity"]), atol=2e-6, rtol=1e-5)
        assert (prediction - unpacked(joint["velocity"])[2:]).std() > 0.01
    assert (alone[0]["velocity"] - alone[1]["velocity"]).std() > 0.01


@torch.no_grad()
def test_the_prediction_depends_on_the_frame_rate(checkpoint):
    """Positions are seconds."""
    slow, fast = load(checkpoint), load(checkpoint, fps=32)
    xt, t, text = normal(1, 4, 2, 4, 4), torch.tensor([500.0]), slow.encode_prompts(PROMPTS[:1])
    ours, theirs = (each.predict(each.denoiser, xt, t, text) for each in (slow, fast))
    assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize(("grid", "fps"), [((2, 4, 4), 16.0), ((16, 16, 24), 24.0), ((1, 1, 3), 25.0)])
def test_positions_are_the_network_s_own(checkpoint, grid, fps):
    network = LTX2VideoTransformer3DModel.from_pretrained(checkpoint, subfolder="transformer")
    expected = network.rope.prepare_video_coords(1, *grid, torch.device("cpu"), fps=fps)
    assert positions(dict(network.config), *grid, fps, torch.device("cpu")).equal(expected)


def test_full_fine_tuning_trains_what_the_video_depends_on_and_nothing_else(checkpoint):
    """Every trained weight gets a gradient, as DDP expects; the audio's stay as they are, and no gradient reaches them."""
    backbone = load(checkpoint)
    policy = make_policy(backbone, PolicyConfig("full"), needs_reference=False, seed=0)
    xt, t = normal(2, 4, 2, 4, 4), torch.tensor([900.0, 101.5])
    text = backbone.encode_prompts(PROMPTS)
    backbone.predict(backbone.denoiser, xt, t, text).square().mean().backward()
    moved = {name for name, weight in policy.trainable.items() if weight.grad is not None and weight.grad.any()}
    # A shift of keys, the same for all, changes no attention: biases of keys alone get nothing but what rounding leaves.
    assert {name for name in policy.trainable.keys() - moved if not name.endswith("to_k.bias")} == set()
    rest = {name: weight for name, weight in backbone.denoiser.named_parameters() if name not in policy.trainable}
    assert {name.split(".")[-1] for name in rest if "audio" not in name and "av_cross_attn" not in name} == {
        "video_a2v_cross_attn_scale_shift_table"
    }
    for weight in rest.values():  # and with a gradient wanted of them, they get none
        weight.requires_grad_(True)
    backbone.predict(backbone.denoiser, xt, t, text).square().mean().backward()
    assert not any(weight.grad is not None and weight.grad.any() for weight in rest.values())


def test_timesteps_are_not_rounded_under_autocast(checkpoint):
    """bfloat16 has no number between 900 and 904."""
    backbone, seen = load(checkpoint), []
    backbone.denoiser.time_embed.emb.time_proj.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    xt, text = normal(1, 4, 2, 4, 4), backbone.encode_prompts(PROMPTS[:1])
    with torch.autocast("cpu", torch.bfloat16):
        backbone.predict(
            backbone.denoiser, xt, torch.tensor([901.0]), {name: value.bfloat16() for name, value in text.items()}
        )
    assert seen[0].tolist() == [901.0]


def test_a_prompt_alone_has_the_embeddings_that_it_has_beside_a_longer_one(checkpoint):
    """Which caches rely on: they hold prompts one by one."""
    backbone = load(checkpoint)
    (both,), (alone,) = (backbone.encode_prompts(prompts).values() for prompts in (PROMPTS, PROMPTS[:1]))
    assert both.shape == (2, 1024, 32 if backbone.denoiser.config.cross_attn_mod else 16)
    close(both[:1], alone, atol=1e-6, rtol=1e-5)


def test_x0_is_the_mean_as_diffusers_normalizes_it(checkpoint):
    """Whatever the noise: the authors' encoder drops the variance."""
    backbone, pipeline = load(checkpoint), DiffusionPipeline.from_pretrained(checkpoint)
    pixels = torch.rand(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x0 = backbone.latents(backbone.encode_media(pixels), normal(1, 4, 2, 4, 4))
    with torch.no_grad():
        mean = pipeline.vae.encode(pixels.transpose(1, 2)).latent_dist.mode()
    close(
        x0, pipeline._normalize_latents(mean, pipeline.vae.latents_mean, pipeline.vae.latents_std), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(("sides", "frames"), [((32, 64), 5), ((512, 768), 121)])
def test_the_shift_follows_the_number_of_tokens(checkpoint, sides, frames):
    """The pipeline's sigmas are the oracle; where they end at `shift_terminal`, they are stretched between 1 and that."""
    architecture = read_architecture(ModelConfig(str(checkpoint)))
    size = architecture.size(DataConfig("x", resolution=sides, num_frames=frames, fps=24).size)
    schedule = architecture.adapter.schedule(size)
    tokens = ((frames - 1) // 4 + 1) * (sides[0] // 8) * (sides[1] // 8)
    assert math.log(schedule.shift) == pytest.approx(0.95 + (2.05 - 0.95) * (tokens - 1024) / (4096 - 1024))
    if tokens > 100:
        return
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    pipeline("a", height=sides[0], width=sides[1], num_frames=frames, num_inference_steps=10, output_type="latent")
    s = schedule.shifted(torch.linspace(1, 0.1, 10))
    if pipeline.scheduler.config.shift_terminal:
        s = 1 - (1 - s) * (1 - 0.1) / (1 - s[-1])
    close(s, pipeline.scheduler.sigmas[:-1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_samples_are_the_video_s_by_itself(checkpoint, guidance):
    """One call a step, each isolated, guided by the empty prompt alone; the network is as it was afterwards."""
    backbone, calls = load(checkpoint), []
    hook = backbone.denoiser.register_forward_hook(lambda *given: calls.append(given[2]), with_kwargs=True)
    frames = backbone.sampler(2, guidance)(PROMPTS[:1], [0])[0]
    hook.remove()
    assert [each["isolate_modalities"] for each in calls] == [True, True]
    assert [len(each["timestep"]) for each in calls] == [1 if guidance == 1 else 2] * 2
    assert [each["fps"] for each in calls] == [16.0] * 2
    assert not backbone.denoiser._forward_pre_hooks
    assert len(frames) == 5
    others = backbone.sampler(2, 6.0)(PROMPTS[:1], [0])[0]
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(frames, others, strict=True))


def test_comfyui_s_names_are_those_that_diffusers_reads_of_the_authors_files(checkpoint, tmp_path):
    """Its converter of LoRA from Lightricks' trainer, of every module that an adapter can be put on."""
    backbone = load(checkpoint)
    linear = [name for name, module in backbone.denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    weights = {name: weight.detach() for name, weight in add_adapters(backbone.denoiser, linear, 4, 4.0).items()}
    backbone.save_lora(tmp_path, weights, "comfyui")
    tensors = {name: value for name, value in load_file(tmp_path / FILE).items() if not name.endswith(".alpha")}
    read = _convert_non_diffusers_ltx2_lora_to_diffusers(tensors)
    expected = {f"transformer.{name.replace('.default', '')}": weight for name, weight in weights.items()}
    assert read.keys() == expected.keys()
    assert all(read[name].equal(weight) for name, weight in expected.items())


def test_a_lora_that_changes_the_connectors_too_is_refused(checkpoint, tmp_path):
    names = (
        "transformer.transformer_blocks.0.attn1.to_q",
        "connectors.video_connector.transformer_blocks.0.attn1.to_q",
    )
    save_file(
        {
            f"{name}.{kind}.weight": torch.ones(shape)
            for name in names
            for kind, shape in (("lora_A", (1, 32)), ("lora_B", (32, 1)))
        },
        tmp_path / FILE,
    )
    with pytest.raises(UserError, match=r"connectors\.video_connector"):
        load_backbone(ModelConfig(str(checkpoint), lora=str(tmp_path)))


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        ("connectors", {"video_connector_num_learnable_registers": None}, "its connectors have no registers"),
        (
            "connectors",
            {"_class_name": "LTXConnectors"},
            "whose connectors is a LTX2TextConnectors; its own is a LTXConnectors",
        ),
        ("transformer", {"patch_size": 2}, "takes patches of 1 x 2 x 2 latents; 1 x 1 x 1 is supported"),
        ("vae", {"spatial_compression_ratio": None}, "its configs do not make a LTX2Pipeline"),
    ],
)
def test_models_of_another_kind_are_refused(tiny_family, tmp_path, part, changed, message):
    folder = shutil.copytree(tiny_family("ltx2"), tmp_path / "other")
    file = folder / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(UserError, match=message):
        load_backbone(ModelConfig(str(folder)))


def test_one_file_is_refused(tiny_family, tmp_path):
    """It holds the connectors as well, and diffusers' converters do not know all names of LTX-2.3."""
    file = tmp_path / "ltx-2-19b-dev.safetensors"
    save_file({"model.diffusion_model.patchify_proj.weight": torch.ones(2, 2)}, file)
    with pytest.raises(UserError, match=r"is one file; a LTX2Pipeline, which has connectors, .* is read from a folder"):
        load_backbone(ModelConfig(str(file), config=str(tiny_family("ltx2"))))


def test_ltx_2_5_is_refused(tiny_family, tmp_path):
    folder = shutil.copytree(tiny_family("ltx2"), tmp_path / "newer")
    file = folder / "model_index.json"
    index = {**json.loads(file.read_text()), "text_encoder": ["transformers", "Gemma4UnifiedForConditionalGeneration"]}
    file.write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"is a Gemma4Unified.*; LTX-2 and LTX-2\.3, of Gemma 3, are supported, LTX-2\.5 is not"
    ):
        read_architecture(ModelConfig(str(folder)))


@pytest.mark.parametrize("sharded", [False, True])
def test_an_exported_pipeline_is_diffusers_own_with_the_checkpoint_s_sound(checkpoint, tmp_path, sharded):
    """Weights that do not train have the dtype of those that do, also where they are gathered from shards beside them."""
    backbone = load_backbone(ModelConfig(str(checkpoint)), dtype=torch.bfloat16)
    policy = make_policy(backbone, PolicyConfig("full"), needs_reference=False, seed=0)
    gathered = {name: weight.detach() for name, weight in backbone.denoiser.named_parameters()} if sharded else {}
    backbone.save_full(tmp_path, gathered | {name: weight + 1 for name, weight in policy.state().items()})
    pipeline, plain = (DiffusionPipeline.from_pretrained(folder) for folder in (tmp_path, checkpoint))
    assert type(pipeline) is LTX2Pipeline
    assert type(pipeline.transformer) is LTX2VideoTransformer3DModel
    assert {
        tensor.dtype for tensor in load_file(tmp_path / "transformer/diffusion_pytorch_model.safetensors").values()
    } == {torch.float32}
    before = plain.transformer.state_dict()
    for name, weight in pipeline.transformer.state_dict().items():
        close(weight, before[name].bfloat16().float() + (name in policy.trainable))
    found = backbone.read_weights(PolicyConfig("full"), tmp_path)
    assert found.keys() == policy.trainable.keys()
    for part in ("connectors", "audio_vae", "vocoder"):
        assert getattr(pipeline, part).state_dict().keys() == getattr(plain, part).state_dict().keys()
