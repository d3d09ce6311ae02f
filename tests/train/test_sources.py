"""Training on pairs of edits: what the networks read of a source, with a cache and without, resumed; what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, WanImageToVideoPipeline
from PIL import Image
from rich.console import Console
from support.checkpoints import EDITING
from support.configs import changed
from support.pictures import encoded
from support.qwen_edit import plain
from support.runs import assert_same_results, train_in_process, train_in_two, train_raw

from sipo.backbones.opening import open_for_sampling
from sipo.config import parse_config
from sipo.data.media.load import load_pixels
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.run import RunDir
from sipo.samples.folder import read_samples
from sipo.size import Size
from sipo.train.loop import train
from sipo.train.opening import open_training
from sipo.train.step import batch_terms

pytestmark = pytest.mark.usefixtures("small_sources")
LOOSE = ("loss.beta=0.01", "loss.prune_threshold=0.0")  # so that no pair of an untrained network is pruned


@pytest.fixture
def editing(raw_config, tiny_family, editing_pairs, starting_videos, tmp_path):
    """(run, *overrides, family) -> a config of 3 steps of 2 pairs with sources on a tiny checkpoint."""

    def make(run: str, *overrides: str, family: str = "flux-kontext") -> dict:
        pairs = starting_videos if "i2v" in family else editing_pairs
        return changed(
            raw_config, f"run={tmp_path / run}", f"model.path={tiny_family(family)}", f"data.path={pairs}",
            *(f"data.{key}={value}" for key, value in EDITING[family][1].items()), "train.num_steps=3",
            "train.checkpoint_every=1", *LOOSE, *overrides,
        )  # fmt: skip

    return make


def columns(run, kind: str = "train") -> dict[str, list[float]]:
    lines = run.read_metrics(kind)
    names = [name for name, value in lines[0].items() if isinstance(value, float) and not name.startswith("seconds")]
    return {name: [line[name] for line in lines] for name in names}


@pytest.mark.parametrize("family", EDITING)
def test_a_cache_changes_nothing(editing, tmp_path, family):
    """Flips, random timesteps and validation too: the same numbers with a cache and without."""
    same = ("data.flip=true", "data.prompt_dropout=0.3", "data.validation=0.3", "train.validate_every=1")
    plain = train_raw(editing("plain", *same, family=family))
    cached = train_raw(editing("cached", *same, f"data.cache={tmp_path / 'cache'}", family=family))
    for kind in ("train", "validation"):
        one, other = columns(plain, kind), columns(cached, kind)
        assert "loss" in one
        assert one.keys() == other.keys()
        for name in one:
            # Rewards are beta H / 2 = 5 times differences of errors near 1, each rounded by up to 1.2e-7; a gap has four.
            least = 2.5e-6 if name.startswith("reward") else 1e-6
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=least), (kind, name)


def test_policy_and_reference_read_the_sources_of_both_members(editing):
    """The second half of the tokens, against the pipeline's own latents of each pair's source, packed by it."""
    raw, seen = editing("run"), []
    with open_training(parse_config(raw), Console(quiet=True)) as t:
        batch = next(t.batches)
        handle = t.backbone.denoiser.register_forward_pre_hook(
            lambda _, args, keys: seen.append(keys["hidden_states"]), with_kwargs=True
        )
        terms = batch_terms(t, batch, 1, t.global_batch, t.clock)
        handle.remove()
    assert batch.source is not None
    pipeline = DiffusionPipeline.from_pretrained(raw["model"]["path"])
    latents = pipeline._encode_vae_image(batch.source, None)
    packed = pipeline._pack_latents(latents, *latents.shape)
    assert len(seen) == 2  # reference and policy, each of chosen and rejected at once
    for tokens in seen:
        assert tokens.shape[:2] == (4, 2 * packed.shape[1])
        torch.testing.assert_close(tokens[:, packed.shape[1] :], torch.cat([packed, packed]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        terms.chosen.policy, terms.chosen.reference, atol=1e-5, rtol=1e-4
    )  # before the first step


def test_policy_and_reference_read_prompts_with_their_sources(editing, tmp_path):
    """Of Qwen-Image-Edit, from a cache: both members of every pair get the text that the pipeline makes of its own prompt and
    source, though prompts are equal."""
    raw, seen = editing("run", f"data.cache={tmp_path / 'cache'}", "data.max_pairs=4", family="qwen-image-edit"), []
    pairs = [json.loads(line) for line in Path(raw["data"]["path"]).read_text().splitlines()]
    same = [{**pair, "prompt": "the same"} for pair in pairs]
    copied = shutil.copytree(Path(raw["data"]["path"]).parent, tmp_path / "pairs")
    (copied / "edits.jsonl").write_text("\n".join(map(json.dumps, same)))
    raw["data"]["path"] = str(copied / "edits.jsonl")
    with open_training(parse_config(raw), Console(quiet=True)) as t:
        batch = next(t.batches)
        t.backbone.denoiser.register_forward_pre_hook(
            lambda _, args, keys: seen.append(keys["encoder_hidden_states"]), with_kwargs=True
        )
        batch_terms(t, batch, 1, t.global_batch, t.clock)
    pipeline = plain(raw["model"]["path"])
    expected = []
    for identity in batch.ids:
        pair = same[int(identity.split(":")[1]) - 1]
        source = Image.fromarray(as_uint8(load_pixels(copied / pair["source"], Size(32, 32)).media))
        shown = pipeline.image_processor.resize(source, 64, 64)
        expected.append(pipeline.encode_prompt("the same", image=shown)[0])
    texts = torch.cat(expected)
    assert (texts[0] - texts[1]).abs().max() > 1e-4
    assert len(seen) == 2
    for hidden in seen:
        torch.testing.assert_close(hidden, torch.cat([texts, texts]), atol=1e-5, rtol=1e-4)


def as_uint8(pixels):
    return ((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_other_sources_make_other_errors_of_policy_and_reference(editing, editing_pairs, tmp_path):
    """And nothing else: prompts, members and draws are the same."""
    folder = tmp_path / "black"
    shutil.copytree(editing_pairs.parent, folder)
    for path in folder.glob("*-source.png"):
        path.write_bytes(encoded(Image.new("RGB", (34, 20))))
    one, other = (
        columns(train_raw(editing(name, f"data.path={path}", "train.num_steps=1")))
        for name, path in (("own", editing_pairs), ("other", folder / "edits.jsonl"))
    )
    for name in ("mse_policy_chosen", "mse_reference_chosen", "mse_policy_rejected", "mse_reference_rejected"):
        assert one[name] != pytest.approx(other[name], rel=1e-7)
        assert one[name] == pytest.approx(other[name], rel=0.5)


@pytest.mark.parametrize("family", ["qwen-image-edit", "qwen-image-edit-plus"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_of_qwen_image_edit_load_in_plain_diffusers(editing, family, kind):
    """Its own sampler's picture, of the trained weights; and another without them."""
    raw = editing("run", "train.learning_rate=5e-2", f"policy.kind={kind}", family=family)
    run = train_raw(raw)
    trained, base = (plain(run.weights if kind == "full" else raw["model"]["path"]), plain(raw["model"]["path"]))
    if kind == "lora":
        trained.load_lora_weights(run.weights)
    opened = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=4.0)
    source = encoded(Image.effect_noise((32, 32), 90).convert("RGB"))
    (own,) = opened.sampler(["prompt 1"], [0], [source])
    call = {"image": decode(source), "prompt": "prompt 1", "negative_prompt": " ", "true_cfg_scale": 4.0, "height": 32,
            "width": 32, "num_inference_steps": 2}  # fmt: skip
    theirs, before = (
        pipeline(**call, generator=[torch.Generator().manual_seed(0)]).images[0] for pipeline in (trained, base)
    )
    assert np.abs(np.asarray(own, int) - np.asarray(theirs, int)).max() <= 1
    assert np.abs(np.asarray(own, int) - np.asarray(before, int)).max() > 1


@pytest.mark.parametrize("family", EDITING)
def test_resumes_exactly_from_a_cache(editing, tmp_path, family):
    cache = f"data.cache={tmp_path / 'cache'}"
    train_raw(editing("halves", cache, "train.num_steps=1", family=family))
    resumed = train_raw(editing("halves", cache, family=family))
    assert_same_results(resumed, train_raw(editing("whole", cache, family=family)), [2, 3])


@pytest.mark.parametrize("family", ["flux-kontext", "qwen-image-edit-plus", "wan2.2-i2v"])
def test_two_shards_train_as_one_process(editing, tmp_path, family):
    """Each encodes its share of the cache, and reads the sources of its own pairs, which no fixture makes smaller there."""
    same = ("train.gradient_accumulation=2", "train.num_steps=2")
    two = editing(
        "two", *same, "train.batch_size=1", "train.sharding=full", f"data.cache={tmp_path / 'two'}", family=family
    )
    one = editing("one", *same, "train.batch_size=2", f"data.cache={tmp_path / 'one'}", family=family)
    assert train_in_two(two) == [0, 0]
    assert train_in_process(one) == 0
    found, expected = (columns(RunDir(Path(raw["run"]))) for raw in (two, one))
    for name in ("loss", "grad_norm", "mse_policy_chosen", "mse_reference_chosen", "mse_policy_rejected"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_a_reference_computed_before_has_read_the_sources(editing):
    """At the first step the policy is the reference, on the same draws."""
    found = columns(train_raw(editing("run", "loss={name: diffusion_dpo, beta: 0.01}", "train.reference.precompute=2")))
    for member in ("chosen", "rejected"):
        assert found[f"mse_reference_{member}"][0] == pytest.approx(found[f"mse_policy_{member}"][0], rel=1e-4)


@pytest.mark.parametrize("family", ["wan2.1-i2v", "wan2.2-i2v", "wan2.2-5b-i2v"])
def test_videos_of_a_training_begin_with_the_sources_of_the_pairs(editing, family):
    run = train_raw(editing("run", "train.sample_every=3", "train.num_steps=3", family=family))
    found = read_samples(run.samples_at(3))
    assert [(sample.prompt, sample.is_video) for sample in found] == [("prompt 0", True), ("prompt 1", True)]


def test_samples_of_a_training_are_edits_of_the_pairs_or_of_a_file(editing, editing_pairs, tmp_path):
    run = train_raw(editing("pairs", "train.sample_every=3", "sample.num_prompts=2"))
    assert [sample.prompt for sample in read_samples(run.samples_at(3))] == ["prompt 0", "prompt 1"]
    lines = [{"prompt": f"edit {n}", "source": str(editing_pairs.parent / f"{n}-source.png")} for n in range(2)]
    (tmp_path / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)))
    of_file = train_raw(editing("file", "train.sample_every=3", f"sample.prompts={tmp_path / 'edits.jsonl'}"))
    found = read_samples(of_file.samples_at(3))
    assert [(sample.prompt, sample.metadata) for sample in found] == [
        (line["prompt"], {"source": line["source"]}) for line in lines
    ]


def refused(raw: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(parse_config(raw), Console(quiet=True))
    assert not (Path(raw["run"]) / "config.yaml").exists()


def test_what_does_not_fit_is_refused_before_work_starts(editing, tiny_family, tiny_pairs, tmp_path, monkeypatch):
    def no_work(*args, **keys):
        raise AssertionError("it has begun to check the rows")

    monkeypatch.setattr("sipo.train.inputs.check_pairs", no_work)
    refused(
        editing("a", f"data.path={tiny_pairs}"),
        r"pairs\.parquet: its pairs have no source.* a FluxKontextPipeline reads",
    )
    refused(
        editing("b", f"model.path={tiny_family('flux')}"),
        r"edits\.jsonl: its pairs have a source.* a FluxPipeline reads none; remove or rename the column",
    )
    (tmp_path / "prompts.txt").write_text("a\n")
    refused(
        editing("d", f"sample.prompts={tmp_path / 'prompts.txt'}"), r"sample\.prompts: .*prompt 1 \('a'\) has no source"
    )


def test_validation_pairs_need_sources_too(editing, tiny_pairs):
    refused(editing("run", f"data.validation={tiny_pairs}"), r"pairs\.parquet: its pairs have no source")


def test_weights_load_in_plain_diffusers(editing, tmp_path):
    raw = editing("run", "train.learning_rate=5e-2")
    run = train_raw(raw)
    pipeline = DiffusionPipeline.from_pretrained(raw["model"]["path"])
    pipeline.load_lora_weights(run.weights)
    pipeline.set_progress_bar_config(disable=True)
    opened = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=3.0)
    source = encoded(Image.effect_noise((16, 16), 90).convert("RGB"))
    (own,) = opened.sampler(["prompt 1"], [0], [source])
    call = {"prompt": ["prompt 1"], "height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 3.0,
            "max_area": 256, "_auto_resize": False}  # fmt: skip

    def made():
        return pipeline(image=[decode(source)], generator=[torch.Generator().manual_seed(0)], **call).images[0]

    assert np.abs(np.asarray(own, int) - np.asarray(made(), int)).max() <= 1
    pipeline.unload_lora_weights()
    assert np.abs(np.asarray(own, int) - np.asarray(made(), int)).max() > 1


@pytest.mark.parametrize("family", ["wan2.1-i2v", "wan2.2-5b"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_of_image_to_video_load_in_plain_diffusers(editing, tiny_family, monkeypatch, family, kind):
    """Its own video, of the trained weights; and another without them. Of the 5B by a config that names the pipeline."""
    monkeypatch.setattr("diffusers.pipelines.wan.pipeline_wan_i2v.prompt_clean", lambda text: text)
    named = "null" if family == "wan2.1-i2v" else "WanImageToVideoPipeline"
    own = (
        f"model.path={tiny_family(family)}",
        f"model.pipeline={named}",
        f"policy.kind={kind}",
        "train.learning_rate=0.5",
    )
    raw = editing("run", *own, family={"wan2.2-5b": "wan2.2-5b-i2v"}.get(family, family))
    run = train_raw(raw)
    trained, base = (
        WanImageToVideoPipeline.from_pretrained(run.weights if kind == "full" else raw["model"]["path"]),
        WanImageToVideoPipeline.from_pretrained(raw["model"]["path"]),
    )
    if kind == "lora":
        trained.load_lora_weights(run.weights)
    opened = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=2.0)
    side = opened.backbone.size.height
    source = encoded(Image.effect_noise((side, side), 90).convert("RGB"))
    (frames,) = opened.sampler(["prompt 1"], [0], [source])
    call = {"image": decode(source), "prompt": "prompt 1", "guidance_scale": 2.0, "height": side, "width": side,
            "num_frames": 5, "num_inference_steps": 2, "output_type": "pil"}  # fmt: skip
    theirs, before = (
        pipeline(**call, generator=torch.Generator().manual_seed(0)).frames[0] for pipeline in (trained, base)
    )
    found, theirs, before = (
        np.stack([np.asarray(frame, int) for frame in video]) for video in (frames, theirs, before)
    )
    assert np.abs(found - theirs).max() <= 1
    assert np.abs(found - before).max() > 8
