"""The flow miniature: its networks as the family sees them, its losses, and its build."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from rich.console import Console

from sipo.backbones import load_backbone
from sipo.backbones.opening import open_for_sampling
from sipo.config import ModelConfig
from sipo.mini import FLOW
from sipo.mini import build as build_module
from sipo.mini.build import build, export
from sipo.mini.cells import AFTER
from sipo.mini.flow import train
from sipo.mini.flow.networks import make_networks
from sipo.mini.flow.recipe import FlowRecipe
from sipo.mini.flow.train import draw_noise_levels, flow_terms, lookup_loss, train_transformer, velocity
from sipo.mini.kinds import FLOW_KIND
from sipo.mini.lookup import normed_attentions
from sipo.mini.networks import make_vae
from sipo.mini.pictures import encode_pool
from sipo.mini.recipe import Flaws, Schedule
from sipo.mini.score import MiniatureScorer
from sipo.mini.tokenizer import make_tokenizer, tokenize

TINY = FlowRecipe(
    vae=Schedule(2, 2),
    text=Schedule(2, 2),
    clean=Schedule(4, 2, warmup_steps=2, ema=0.9),
    noisy=Schedule(2, 2, ema=0.9),
    pool_size=6,
)
EMPTY = tokenize(make_tokenizer(), [""])
PROMPTS = ["a photo of a star", "a photo of two red circles"]


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def networks():
    """With weights that say something: a fresh FLUX predicts 0."""
    made = make_networks(0, "cpu")
    torch.manual_seed(1)
    torch.nn.init.normal_(made["transformer"].proj_out.weight, std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory):
    vae = make_vae()
    vae.register_to_config(scaling_factor=0.7)
    out = tmp_path_factory.mktemp("flow")
    export(FLOW_KIND, vae, networks, out)
    return out


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return encode_pool(tmp_path_factory.mktemp("pool") / "p.safetensors", make_vae(), TINY, Flaws(), "cpu", False)


def test_plain_diffusers_loads_and_samples_it(folder):
    plain = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert type(plain) is FluxPipeline
    plain.set_progress_bar_config(disable=True)
    images = plain(PROMPTS, height=64, width=64, num_inference_steps=2, max_sequence_length=32, output_type="np").images
    assert images.shape == (2, 64, 64, 3)


def test_guidance_is_that_of_the_pipelines_unconditional_prediction(folder):
    """No guidance was distilled into it: told one, the network would not change its pictures."""
    backbone = load_backbone(ModelConfig(str(folder)))
    backbone.pipeline.set_progress_bar_config(disable=True)

    def plain(**guidance):
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        return backbone.pipeline(PROMPTS, height=64, width=64, num_inference_steps=2, generator=generators, **guidance,
                                 max_sequence_length=32).images  # fmt: skip

    pictures = {scale: [np.array(each) for each in backbone.sampler(2, scale)(PROMPTS, [5, 6])] for scale in (1.0, 4.0)}
    assert not np.array_equal(pictures[1.0], pictures[4.0])
    np.testing.assert_array_equal(pictures[1.0], [np.array(each) for each in plain()])
    guided = plain(true_cfg_scale=4.0, negative_prompt=["", ""])
    np.testing.assert_array_equal(pictures[4.0], [np.array(each) for each in guided])


def test_what_is_trained_is_what_the_family_predicts(folder, networks):
    """The toolkit's own encoding of prompts and forward pass, on the exported files, against those of the training."""
    backbone = load_backbone(ModelConfig(str(folder)))
    assert (backbone.size.height, backbone.size.width) == (64, 64)
    xt = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([900.0, 300.0])
    with torch.no_grad():
        theirs = backbone.predict(backbone.denoiser, xt, t, backbone.encode_prompts(PROMPTS))
        ours, _ = velocity(networks, xt, t / 1000, tokenize(make_tokenizer(), PROMPTS))
    assert ours.abs().mean() > 0.01
    torch.testing.assert_close(train.pack(theirs), ours, atol=0.01, rtol=0.02)  # the files are of half precision


def test_the_schedule_samples_as_it_was_trained(folder):
    schedule = load_backbone(ModelConfig(str(folder)), encoders=False).schedule
    assert schedule.shift == FlowRecipe().shift
    levels = draw_noise_levels(4000, 3.0, torch.Generator().manual_seed(0))
    assert 0 < levels.min() < 0.01
    assert levels.max() <= 1
    assert float((levels > 0.75).float().mean()) == pytest.approx(0.5, abs=0.01)  # 3 u / (1 + 2 u) at u = 1/2


def test_the_loss_is_the_error_of_the_velocity(networks, pool, monkeypatch):
    """0 for the true velocity, and its own mean square for a prediction of 0."""
    seen = {}

    def true(networks, xt, s, tokens):
        seen.update(xt=xt, s=s)
        rows = [int((pool["tokens"] == row).all(1).nonzero()[0]) for row in tokens]  # no caption of step 3 is dropped
        x0 = pool["latents"][rows].float()
        s = s.view(-1, 1, 1, 1)
        return train.pack((xt - x0) / s), torch.zeros(len(rows), 32, 128)  # x_s - x_0 = s (eps - x_0)

    monkeypatch.setattr(train, "velocity", true)
    assert len({tuple(row.tolist()) for row in pool["tokens"]}) == len(pool["tokens"])
    assert float(flow_terms(networks, TINY, 4, pool, EMPTY, 3)["flow"]) < 1e-6
    monkeypatch.setattr(train, "velocity", lambda *given: (torch.zeros(4, 64, 16), torch.zeros(4, 32, 128)))
    assert float(flow_terms(networks, TINY, 4, pool, EMPTY, 3)["flow"]) > 0.5


def test_the_share_of_empty_captions(networks, pool, monkeypatch):
    seen = []

    def remember(networks, xt, s, tokens):
        seen.append((tokens == EMPTY).all(1))
        return torch.zeros(len(tokens), 64, 16), torch.zeros(len(tokens), 32, 128)

    monkeypatch.setattr(train, "velocity", remember)
    for step in range(20):
        flow_terms(networks, TINY, 100, pool, EMPTY, step)
    assert float(torch.cat(seen).float().mean()) == pytest.approx(TINY.prompt_dropout, abs=0.03)


def test_attentions_are_seen_as_the_network_computes_them(networks):
    """The softmax of the queries and keys seen, over all tokens, are the weights that the block's own output needs."""
    transformer, tokens = networks["transformer"], tokenize(make_tokenizer(), PROMPTS)
    with torch.no_grad(), normed_attentions(transformer) as seen:
        velocity(networks, torch.randn(2, 4, 16, 16), torch.tensor([0.5, 0.9]), tokens)
        assert len(seen) == 7
        assert [("norm_added_k" in passed) for passed in seen] == [True] + [False] * 6
        assert seen[0]["norm_q"].shape == (2, 64, 5, 32)
        assert seen[0]["norm_added_k"].shape == (2, 32, 5, 32)
        assert seen[3]["norm_q"].shape == (2, 96, 5, 32)
        chance = lookup_loss(transformer, seen, 2, 64)
    assert float(chance) == pytest.approx(torch.log(torch.tensor(32.0)), abs=1.0)


def test_places_look_up_their_own_cell():
    """Queries made so that, rotated, they meet the key of their own cell's token: the loss is near 0, else far from it."""
    transformer = make_networks(0, "cpu")["transformer"]
    ids = FluxPipeline._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    cosine, sine = transformer.pos_embed(ids)
    keys = torch.zeros(1, 32, 1, 32)
    for token in range(32):
        keys[0, token, 0, token] = 20.0  # one direction for each token
    cell = torch.arange(8) // 2
    own = AFTER + (cell[:, None] * 4 + cell).flatten()
    wanted = keys[0, own, 0]  # (64, 32), after rotation
    pairs = wanted.unflatten(-1, (-1, 2))
    turned = torch.stack([pairs[..., 1], -pairs[..., 0]], -1).flatten(-2)
    queries = (wanted * cosine + turned * sine)[None, :, None]  # rotated back
    right = lookup_loss(transformer, [{"norm_q": queries, "norm_added_k": keys, "norm_k": keys}], 1, 64)
    wrong = lookup_loss(transformer, [{"norm_q": queries.roll(1, 1), "norm_added_k": keys, "norm_k": keys}], 1, 64)
    assert float(right) < 0.01
    assert float(wrong) > 1


def test_training_resumes_exactly_and_leaves_its_start_unchanged(pool, tmp_path):
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
    for name, tensor in make_networks(0, "cpu").state_dict().items():
        assert torch.equal(tensor, start.state_dict()[name]), name


def test_build_writes_a_pipeline_and_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "GLANCE", 6)
    record = build(FLOW_KIND, tmp_path / "out", recipe=TINY, bf16=False, num_scored=6, console=Console(quiet=True))
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record
    assert record["steps"] == {"vae": 2, "text": 2, "clean": 4, "noisy": 2}
    assert set(record["scores"]) == {"overall", "cleanliness", *FLOW_KIND.miniature.categories}
    files = list((tmp_path / "out").rglob("*.safetensors"))
    assert len(files) == 4
    assert sum(path.stat().st_size for path in files) < 16 * 2**20


def test_the_shipped_one_draws_what_prompts_ask_for_but_not_always():
    """Of 16 pictures about a third is right for its own prompt, and next to none for another's."""
    prompts = ["a photo of a blue circle", "a photo of a red square", "a photo of a star", "a photo of two circles"] * 4
    images = open_for_sampling("miniature-flow", False, FLOW.num_inference_steps, FLOW.guidance_scale).sampler(
        prompts, list(range(900, 916))
    )
    others = prompts[1:] + prompts[:1]
    right, of_others = (
        sum(entry["correct"] for entry in MiniatureScorer().details(images, asked)) for asked in (prompts, others)
    )
    assert 4 <= right <= 14
    assert of_others <= 1
