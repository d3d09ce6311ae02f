"""The video miniature's networks as the family sees them, its data, its losses, and its build."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, DiffusionPipeline
from rich.console import Console

from sipo.backbones import load_backbone
from sipo.config import ModelConfig
from sipo.mini import build as build_module
from sipo.mini.build import build, export
from sipo.mini.cells import KINDS, NOTHING
from sipo.mini.kinds import VIDEO_KIND
from sipo.mini.lookup import normed_attentions, own_tokens
from sipo.mini.prompts import load_prompts, split_prompts
from sipo.mini.recipe import Flaws, Schedule
from sipo.mini.tokenizer import MAX_LENGTH, tokenize
from sipo.mini.video import train
from sipo.mini.video.clips import Clip, Mover, to_frames
from sipo.mini.video.data import draw_clips, encode_pool, to_pixels, what_moves_where
from sipo.mini.video.networks import AFTER, make_networks, make_vae, video_tokenizer
from sipo.mini.video.recipe import VideoRecipe
from sipo.mini.video.score import VideoMiniatureScorer
from sipo.mini.video.train import error_weight, lookup_loss, train_transformer, velocity, video_terms
from sipo.mini.video.wording import CATEGORIES, HELDOUT, WORDS, all_prompts, judged_prompts
from sipo.mini.world import Thing

TINY = VideoRecipe(
    vae=Schedule(2, 1),
    stills=1,
    text=Schedule(2, 2),
    clean=Schedule(4, 2, warmup_steps=2, ema=0.9),
    noisy=Schedule(2, 2, ema=0.9),
    pool_size=4,
)
EMPTY = tokenize(video_tokenizer(), [""])
PROMPTS = ["a video of a square", "a video of a red circle moving slowly left"]


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def networks():
    return make_networks(0, "cpu").eval()


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory):
    vae = make_vae()
    vae.register_to_config(scaling_factor=0.7)
    out = tmp_path_factory.mktemp("video")
    export(VIDEO_KIND, vae, networks, out)
    return out


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return encode_pool(tmp_path_factory.mktemp("pool") / "p.safetensors", make_vae(), TINY, Flaws(), "cpu", False)


def test_plain_diffusers_loads_and_samples_it(folder):
    plain = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert type(plain) is CogVideoXPipeline
    plain.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0, "max_sequence_length": 32, "output_type": "np"}
    frames = plain(PROMPTS[0], **settings).frames
    assert frames.shape == (1, 9, 64, 64, 3)


def test_what_is_trained_is_what_the_family_predicts(folder, networks):
    """The toolkit's own encoding, schedule and forward pass, on the exported files, against those of the training."""
    backbone = load_backbone(ModelConfig(str(folder)))
    assert (backbone.size.height, backbone.size.width, backbone.size.num_frames) == (64, 64, 9)
    assert torch.equal(backbone.schedule.alphas_cumprod, train.video_schedule().alphas_cumprod)
    assert backbone.schedule.prediction == train.video_schedule().prediction == "v_prediction"
    assert float(backbone.schedule.alphas_cumprod[-1]) == 0
    xt, t = torch.randn(2, 5, 6, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([900, 300])
    with torch.no_grad():
        theirs = backbone.predict(backbone.denoiser, xt, t, backbone.encode_prompts(PROMPTS))
        ours, _ = velocity(networks, xt, t, tokenize(video_tokenizer(), PROMPTS))
    assert ours.abs().mean() > 0.01
    torch.testing.assert_close(theirs, ours, atol=0.02, rtol=0.02)  # the files are of half precision


def test_the_pool_holds_what_the_family_encodes(pool):
    videos, captions, _ = draw_clips(4, np.random.default_rng([0, 3, 0]), Flaws(), TINY.mixture)
    with torch.no_grad():
        mean = make_vae_of_seed().encode(to_pixels(videos)).latent_dist.mean
    assert pool["latents"].shape == (4, 5, 6, 16, 16)
    assert pool["latents"].shape[1] == mean.shape[2]
    assert torch.equal(pool["tokens"], tokenize(video_tokenizer(), captions))


def make_vae_of_seed():
    torch.manual_seed(0)
    return make_vae()


def test_the_autoencoder_sees_stills_and_then_clips(monkeypatch, tmp_path):
    """Four single frames in the place of a clip."""
    seen = []
    monkeypatch.setattr(train, "fit_vae", lambda vae, recipe, batch, *rest: seen.extend(batch(step) for step in (0, 1)))
    train.train_vae(TINY, tmp_path, lambda step, metrics: None, "cpu", False)
    assert [tuple(pixels.shape) for pixels in seen] == [(4, 3, 1, 64, 64), (1, 3, 9, 64, 64)]
    with torch.no_grad():
        assert [make_vae_of_seed().encode(x).latent_dist.mean.shape[2] for x in seen] == [1, 5]


def test_the_loss_is_the_error_of_v(networks, pool, monkeypatch):
    """0 for the true v = sqrt(abar) eps - sqrt(1 - abar) x_0, computed here from x_t, x_0 and the table."""
    abar = train.video_schedule().alphas_cumprod.double()

    def true(networks, xt, t, tokens):
        rows = [int((pool["tokens"] == row).all(1).nonzero()[0]) for row in tokens]
        x0, xt = pool["latents"][rows].double(), xt.double()
        alpha, sigma = (c.view(-1, 1, 1, 1, 1) for c in (abar[t].sqrt(), (1 - abar[t]).sqrt()))
        return (alpha * (xt - alpha * x0) / sigma - sigma * x0).float(), torch.zeros(len(rows), 32, 128)

    assert len({tuple(row.tolist()) for row in pool["tokens"]}) == len(pool["tokens"])
    monkeypatch.setattr(train, "velocity", true)
    assert float(video_terms(networks, TINY, 4, pool, EMPTY, 3)["v"]) < 1e-3
    monkeypatch.setattr(train, "velocity", lambda *given: (torch.zeros(4, 5, 6, 16, 16), torch.zeros(4, 32, 128)))
    assert float(video_terms(networks, TINY, 4, pool, EMPTY, 3)["v"]) > 0.3


def test_all_noise_levels_count_about_alike():
    """By the errors of v that a network left after 2,000 steps without weights, on 64 clips of its pool."""
    abar = torch.tensor([0.7282, 0.4882, 0.3048, 0.1776, 0.0953, 0.0458, 0.0186, 0.0057, 0.0009, 0.0002, 0.0])
    errors = torch.tensor([0.061, 0.052, 0.053, 0.059, 0.070, 0.092, 0.131, 0.202, 0.401, 0.470, 0.518])
    counted = error_weight(abar) * errors
    assert errors.max() > 9 * errors.min()
    assert counted.max() < 1.5 * counted.min()


def test_cells_say_what_stands_where_in_the_first_middle_and_last_frame():
    clip = Clip((Mover(Thing("square", "red", 8, 24, 9), 6.0, 0.0),), (0, 0, 0))
    cells = what_moves_where(clip).view(4, 4, 3)
    square = KINDS.index(("square", "red"))
    for frame, column in enumerate((0, 2, 3)):  # x is 8, 32 and 56
        assert cells[1, column, frame] == square
        assert (cells[:, :, frame] == square).sum() <= 2
    assert (cells[3] == NOTHING).all()


def test_places_of_every_frame_look_up_their_own_cell(networks):
    with torch.no_grad(), normed_attentions(networks["transformer"]) as seen:
        velocity(networks, torch.randn(2, 5, 6, 16, 16), torch.tensor([5, 900]), tokenize(video_tokenizer(), PROMPTS))
    assert len(seen) == 6
    assert {name: tuple(x.shape) for name, x in seen[0].items()} == dict.fromkeys(("norm_q", "norm_k"), (2, 5, 112, 32))
    keys, queries = torch.zeros(1, 4, 112, 32), torch.zeros(1, 4, 112, 32)
    keys[0, :, :32] = 10 * torch.eye(32)  # one direction for each token of the text
    queries[0, :, 32:] = 10 * torch.eye(32)[own_tokens(16, AFTER)].repeat(5, 1)
    assert float(lookup_loss([{"norm_q": queries, "norm_k": keys}], 2, 32)) < 0.01
    assert float(lookup_loss([{"norm_q": queries.roll(1, 2), "norm_k": keys}], 2, 32)) > 1


def test_training_resumes_exactly(pool, tmp_path):
    start = make_networks(0, "cpu")

    def stop(step, metrics):
        if step == 3:
            raise Stopped

    def run(folder, report):
        return train_transformer(
            start, TINY, TINY.clean, pool, tmp_path / folder, report, False, guided=True, save_every=2
        )

    whole = run("whole", lambda step, metrics: None)
    with pytest.raises(Stopped):
        run("cut", stop)
    resumed = run("cut", lambda step, metrics: None)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_build_writes_a_pipeline_and_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "GLANCE", 5)
    record = build(VIDEO_KIND, tmp_path / "out", recipe=TINY, bf16=False, num_scored=5, console=Console(quiet=True))
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record
    assert record["steps"] == {"vae": 2, "text": 2, "clean": 4, "noisy": 2}
    assert set(record["scores"]) == {"overall", "cleanliness", *CATEGORIES}
    files = list((tmp_path / "out").rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) < 16 * 2**20


def test_the_shares_of_flaws_are_those_asked_for():
    videos, captions, _ = draw_clips(200, np.random.default_rng(1), Flaws(0.2, 0.1, 0.4))
    details = VideoMiniatureScorer().details([to_frames(video) for video in videos], captions)
    poor = np.array([entry["cleanliness"] < 0.72 for entry in details])
    assert np.mean(poor) == pytest.approx(0.4, abs=0.1)
    right = np.mean([entry["correct"] for entry, is_poor in zip(details, poor, strict=True) if not is_poor])
    assert right == pytest.approx(0.7, abs=0.12)


def test_prompts_fit_and_the_worlds_words_are_one_token_each():
    tokenizer = video_tokenizer()
    for word in WORDS:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1
    prompts = [prompt["prompt"] for group in all_prompts().values() for prompt in group]
    tokens = tokenize(tokenizer, prompts)
    assert tokens.shape[1] == MAX_LENGTH
    assert bool((tokens[:, AFTER : AFTER + 16] == tokenizer.eos_token_id).all())  # the tokens that answer for the cells
    assert bool((tokens[:, AFTER - 1] != tokenizer.eos_token_id).any())


def test_the_shipped_prompts_are_disjoint_balanced_and_as_the_code_makes_them():
    splits = dict(zip(("train", "heldout"), split_prompts(judged_prompts(), HELDOUT), strict=True))
    texts = {}
    for name, split in splits.items():
        prompts = load_prompts(name, VIDEO_KIND.miniature)
        counts = Counter(prompt["tag"] for prompt in prompts)
        assert set(counts) == set(CATEGORIES)
        assert len(set(counts.values())) == 1
        texts[name] = {prompt["prompt"] for prompt in prompts}
        assert texts[name] <= {prompt["prompt"] for group in split.values() for prompt in group}
    assert len(load_prompts("heldout", VIDEO_KIND.miniature)) == 240
    assert not texts["train"] & texts["heldout"]
