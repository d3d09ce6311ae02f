"""The shipped miniature: an ordinary pipeline, small enough, that draws its world."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from torch.utils.flop_counter import FlopCounterMode

from sipo.backbones.opening import open_for_sampling
from sipo.mini import FLOW, MINIATURES
from sipo.mini.kinds import KINDS
from sipo.mini.networks import make_scheduler
from sipo.mini.pipeline import WEIGHTS, load_pipeline
from sipo.mini.score import MiniatureScorer
from sipo.mini.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline()


def sample(prompts, seeds, num_inference_steps=20):
    return open_for_sampling("miniature", False, num_inference_steps, 4.0).sampler(prompts, seeds)


def test_plain_diffusers_loads_and_samples_it():
    plain = DiffusionPipeline.from_pretrained(WEIGHTS, local_files_only=True)
    assert type(plain) is StableDiffusionPipeline
    assert plain.unet.config.in_channels == 4
    plain.set_progress_bar_config(disable=True)
    images = plain("a photo of a red circle", num_inference_steps=2, output_type="np").images
    assert images.shape == (1, 64, 64, 3)
    assert np.isfinite(images).all()


@pytest.mark.parametrize("shipped", MINIATURES.values(), ids=MINIATURES)
def test_all_that_ships_is_safetensors_of_half_precision_within_the_budget(shipped):
    files = [path for path in shipped.weights.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in [*files, shipped.pairs]) < 16 * 2**20
    tensors = [path for path in files if path.suffix in (".safetensors", ".bin", ".pt")]
    assert len(tensors) == (4 if shipped is FLOW else 3)  # FLUX's text encoder stands in two places
    for path in tensors:
        header = path.read_bytes()
        fields = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
        assert {f["dtype"] for name, f in fields.items() if name != "__metadata__"} <= {"F16", "I64"}


def test_a_forward_costs_at_most_half_a_gigaflop(pipeline):
    latents, states = torch.zeros(1, 4, 16, 16), torch.zeros(1, 32, pipeline.text_encoder.config.hidden_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        pipeline.unet(latents, torch.tensor([5]), states)
    assert 0.1e9 < counter.get_total_flops() <= 0.5e9


def test_the_schedule_is_stable_diffusions(pipeline):
    """Golden values of SD's scaled-linear schedule."""
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    abar = make_scheduler().alphas_cumprod
    assert abar[[0, 100, 500, 999]].tolist() == pytest.approx([0.99915, 0.89422348, 0.27633268, 0.0046601], rel=1e-4)
    assert torch.equal(pipeline.scheduler.alphas_cumprod, abar)


def test_the_shipped_tokenizer_is_the_one_that_the_code_makes(pipeline):
    assert pipeline.tokenizer.get_vocab() == make_tokenizer().get_vocab()
    text = "a photo of three crosses, ñandú 日本 🙂"
    assert pipeline.tokenizer(text).input_ids == make_tokenizer()(text).input_ids


def test_latents_have_about_unit_variance(pipeline):
    """Which the noise schedule takes for granted."""
    from sipo.mini.pictures import draw_pictures, to_pixels

    pictures, *_ = draw_pictures(32, np.random.default_rng(99))
    with torch.no_grad():
        latents = pipeline.vae.encode(to_pixels(pictures)).latent_dist.mean * pipeline.vae.config.scaling_factor
    assert 0.8 < latents.std() < 1.25


def test_a_picture_depends_on_its_own_seed_alone():
    prompts = ["a photo of a star", "a photo of a red square", "a photo of two circles"]
    together = sample(prompts, [4, 5, 6], num_inference_steps=3)
    alone = sample(prompts[1:2], [5], num_inference_steps=3)[0]
    difference = np.asarray(together[1], dtype=int) - np.asarray(alone, dtype=int)
    assert np.abs(difference).max() <= 2  # batched sums round differently
    other = sample(prompts[1:2], [6], num_inference_steps=3)[0]
    assert np.abs(np.asarray(other, dtype=int) - np.asarray(alone, dtype=int)).max() > 20


def test_it_draws_what_prompts_ask_for_but_not_always():
    """Of 16 pictures about a third is right for its own prompt, and next to none for another's."""
    prompts = ["a photo of a blue circle", "a photo of a red square", "a photo of a star", "a photo of two circles"] * 4
    images = sample(prompts, list(range(900, 916)))
    others = prompts[1:] + prompts[:1]
    right, of_others = (
        sum(entry["correct"] for entry in MiniatureScorer().details(images, asked)) for asked in (prompts, others)
    )
    assert 4 <= right <= 12
    assert of_others <= 1


@pytest.mark.parametrize("name", MINIATURES)
def test_the_record_says_how_it_was_made_and_how_good_it_is(name):
    """It knows more than it shows: pretraining data with flaws took half of what it could."""
    record = json.loads((MINIATURES[name].weights / "record.json").read_text(encoding="utf-8"))
    assert record["recipe"] == asdict(KINDS[name].recipe())
    assert record["steps"] == {stage: record["recipe"][stage]["num_steps"] for stage in record["steps"]}
    assert record["pictures_scored"] >= 1000
    shown = {category: record["scores"][category] for category in MINIATURES[name].categories}
    assert 0.25 <= record["scores"]["overall"] <= 0.45
    assert max(shown.values()) <= 0.75
    assert min(shown.values()) > 0
    if "position" in shown:
        assert record["scores_before_noise"]["position"] >= 0.6
    assert record["scores_before_noise"]["overall"] >= record["scores"]["overall"] + 0.2
    assert record["scores_before_noise"]["cleanliness"] > record["scores"]["cleanliness"]
