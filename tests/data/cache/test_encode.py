"""Encoding: what is stored, resuming after SIGKILL, several processes. Real processes, real kills."""

import json
import multiprocessing
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from support import checkpoints as tiny
from support.folders import contents
from support.pictures import FakeEncoder, pick_a_pic, write_parquet
from support.processes import Kill, in_one, in_two
from torch.utils.data import DataLoader

from sipo.backbones import load_backbone
from sipo.config import ModelConfig
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import CacheType, EncodeRequest, made_by
from sipo.data.cache.read import Cache
from sipo.data.cache.shards import Encoder
from sipo.data.draws import CropMode, draw_augmentation
from sipo.data.media.load import load_pixels
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError
from sipo.processes import ALONE, Processes
from sipo.size import Size

SIZE = Size(16, 16)
USABLE = [row for row in range(30) if row % 7 != 3]  # 26 rows


@pytest.fixture(scope="module")
def columns() -> dict[str, list]:
    return pick_a_pic(30, prompts=9)


@pytest.fixture(scope="module")
def source(columns: dict[str, list], tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    return open_pairs(write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", columns))


def encode(
    source: PairSource, out: Path, backbone: Encoder | None = None, processes: Processes = ALONE, **options
) -> FakeEncoder:
    fake = FakeEncoder()
    settings = {"crop": "random", "flip": True, "batch_size": 3, "seed": 1, "pairs_per_shard": 4}
    encode_cache(backbone or fake, EncodeRequest(source, USABLE, SIZE, **(settings | options)), out, processes)
    return fake


def test_what_is_stored_is_what_the_backbone_gives(
    source: PairSource, columns: dict[str, list], tmp_path: Path
) -> None:
    """Means and log-variances of both members, in both orientations, with the drawn crop; float32, bit for bit."""
    backbone = encode(source, tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    assert len(cache) == 26
    for row in (0, 5, 29):
        sample = cache.get(cache.position(row))
        crop = draw_augmentation(1, 0, f"pairs.parquet:{row}", False, 0.0).crop
        winner, loser = ("jpg_0", "jpg_1") if row % 2 == 0 else ("jpg_1", "jpg_0")
        for (moments, crops), name in zip(sample.members, (winner, loser), strict=True):
            pixels, expected_crops = load_pixels(columns[name][row], SIZE, crop)
            assert torch.equal(moments[0], backbone.encode_media(pixels[None])[0])
            assert torch.equal(moments[1], backbone.encode_media(pixels.flip(-1)[None])[0])
            assert torch.equal(crops, expected_crops)
        assert sample.id == f"pairs.parquet:{row}"
        assert cache.prompt(sample.prompt) == f"prompt {row % 9}"
        expected = backbone.encode_prompts([f"prompt {row % 9}"])
        found = cache.conditioning(sample.prompt)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value[0])
            assert found[key].dtype == value.dtype


def test_each_prompt_is_encoded_once_and_the_empty_one_too(source: PairSource, tmp_path: Path) -> None:
    backbone = encode(source, tmp_path / "cache")
    assert sorted(backbone.prompts) == sorted(["", "", *set(source.prompts(USABLE))])  # the first one is measured
    assert backbone.pictures == 1 + 26 * 2 * 2
    cache = Cache(tmp_path / "cache")
    assert torch.equal(cache.conditioning(0)["pooled"], backbone.encode_prompts([""])["pooled"][0])


def test_a_complete_cache_is_not_encoded_again(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "cache")
    before = contents(tmp_path / "cache")
    again = encode(source, tmp_path / "cache")
    assert (again.pictures, again.prompts, again.loads) == (0, [], 0)
    assert contents(tmp_path / "cache") == before


def test_workers_decode_what_one_process_does(source: PairSource, tmp_path: Path, monkeypatch) -> None:
    """Byte for byte. Pixels travel as bytes, and one loader serves all shards."""
    loaders: list[DataLoader] = []

    class Counted(DataLoader):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            loaders.append(self)

    encode(source, tmp_path / "one")
    monkeypatch.setattr("sipo.data.cache.encode.DataLoader", Counted)
    encode(source, tmp_path / "many", num_workers=2)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert [loader.num_workers for loader in loaders] == [2]
    assert loaders[0].dataset[0].pixels.dtype == torch.uint8


def test_the_error_of_a_worker_is_the_users(columns: dict[str, list], tmp_path: Path) -> None:
    broken = columns | {"jpg_0": [*columns["jpg_0"][:5], b"broken", *columns["jpg_0"][6:]]}
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", broken))
    with pytest.raises(UserError, match=r"^pairs\.parquet:5: .*sipo data check"):
        encode(source, tmp_path / "cache", num_workers=2)


class Slow(FakeEncoder):
    def encode_media(self, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return super().encode_media(pixels)


def in_a_process(source: PairSource, out: Path, **options) -> BaseProcess:
    def work() -> None:
        torch.set_num_threads(1)
        encode(source, out, Slow(), **options)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_encoding_survives_sigkill(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "whole")
    out = tmp_path / "killed"
    kills = 0
    for sealed in (1, 3, 6):  # wait for so many shards, then kill somewhere in the next one
        process = in_a_process(source, out)
        while len(list(out.glob("*.seal"))) < sealed and process.is_alive():
            time.sleep(0.005)
        time.sleep(0.03)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        with pytest.raises(UserError, match="encoding was not finished"):
            Cache(out)
    assert kills == 3
    finished = {file.name.removesuffix(".seal") for file in out.glob("pairs-*.seal")}
    times = {name: (out / name).stat().st_mtime_ns for name in finished}
    (out / f".{'pairs-00006.safetensors'}.abc.tmp").write_bytes(b"left by a kill in the middle of a write")
    backbone = encode(source, out)
    assert backbone.pictures == (26 - 4 * len(finished)) * 4
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == times
    assert contents(out) == contents(tmp_path / "whole")
    Cache(out).verify()


def slow_encodes(processes: Processes, source: PairSource, out: Path) -> int:
    """How many pictures this process encoded."""
    backbone = Slow()
    encode(source, out, backbone, processes)
    return backbone.pictures


def test_two_processes_make_the_cache_of_one(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "one")
    found = in_two(slow_encodes, source, tmp_path / "two")
    assert sum(found) - 26 * 4 in (1, 2)  # black ones, by which a process that finds no plan learns a pair's size
    assert min(found) > 26
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def slow_encodes_in_one_shard(processes: Processes, source: PairSource, out: Path) -> int:
    """As `slow_encodes`, of a shard that is never whole before a kill; every batch of two pairs is kept at once."""
    backbone = Slow()
    encode(source, out, backbone, processes, batch_size=2, pairs_per_shard=26, keep_every=0.0)
    return backbone.pictures


def test_a_kill_within_a_shard_costs_a_batch(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "whole", batch_size=2, pairs_per_shard=26)
    assert not list((tmp_path / "whole").glob("*.part-*"))
    out = tmp_path / "killed"
    in_one(slow_encodes_in_one_shard, source, out, kill=Kill(0, 4, ".part-"))  # while the fourth is written
    assert not list(out.glob("pairs-*.seal"))
    assert len(list(out.glob("pairs-*.part-*"))) == 3
    damaged = out / "pairs-00000.safetensors.part-0002"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    (encoded,) = in_one(slow_encodes_in_one_shard, source, out)
    assert encoded == (26 - 2 * 2) * 4  # two parts are sound
    assert contents(out) == contents(tmp_path / "whole")
    Cache(out).verify()


def test_parts_of_other_pairs_are_not_used(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "whole", pairs_per_shard=26)
    out = tmp_path / "killed"
    in_one(slow_encodes_in_one_shard, source, out, kill=Kill(0, 3, ".part-"))
    first, second = (out / f"pairs-00000.safetensors.part-000{n}" for n in (0, 1))
    first.unlink()
    second.rename(first)  # its ids are those of the third and fourth pair
    assert encode(source, out, pairs_per_shard=26).pictures == 26 * 4
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize(("first", "then"), [(in_two, in_one), (in_one, in_two)])
def test_a_kill_costs_a_shard_and_any_number_of_processes_goes_on(source, tmp_path, first, then) -> None:
    encode(source, tmp_path / "one")
    out, rank = tmp_path / "two", 1 if first is in_two else 0
    found = first(slow_encodes, source, out, kill=Kill(rank, 3, "safetensors.seal."))
    if first is in_two:
        assert "process 1 has ended without a word" in found[0]
    finished = len(list(out.glob("pairs-*.seal")))
    assert finished
    assert not (out / "manifest.json").exists()
    assert sum(then(slow_encodes, source, out)) == (26 - 4 * finished) * 4
    assert contents(out) == contents(tmp_path / "one")
    Cache(out).verify()


def test_another_origin_is_refused_with_every_difference(source: PairSource, tmp_path: Path) -> None:
    encode(source, tmp_path / "cache")
    with pytest.raises(UserError) as caught:
        encode(source, tmp_path / "cache", FakeEncoder("another"), crop="center")
    message = str(caught.value)
    assert "model.name: fake in the cache, another here" in message
    assert "crop: random in the cache, center here" in message
    assert "crop seed: 1 in the cache, None here" in message
    assert "height" not in message


def test_the_seed_matters_to_random_crops_alone(source: PairSource) -> None:
    def made(crop: CropMode, seed: int) -> dict:
        return made_by({}, EncodeRequest(source, USABLE, SIZE, crop, seed=seed))

    assert made("center", 0) == made("center", 1)
    assert made("random", 0) != made("random", 1)


def test_other_rows_in_equal_number_are_other_data(source: PairSource) -> None:
    a, b = (made_by({}, EncodeRequest(source, rows, SIZE)) for rows in ([0, 1], [0, 2]))
    assert a != b


def test_other_folders_are_left_alone(source: PairSource, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not delete")
    with pytest.raises(UserError, match="other files"):
        encode(source, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_vae_that_overflows_is_reported_with_its_pairs(source: PairSource, tmp_path: Path) -> None:
    class Overflowing(FakeEncoder):
        def encode_media(self, pixels: torch.Tensor) -> torch.Tensor:
            moments = super().encode_media(pixels)
            if len(pixels) > 1 and self.pictures <= 4:
                moments[1] = float("inf")
            return moments

    with pytest.raises(UserError, match=r"NaN or infinity for 1 pairs \(pairs\.parquet:1\)"):
        encode(source, tmp_path / "cache", Overflowing())


def test_a_picture_that_fails_is_named(columns: dict[str, list], tmp_path: Path) -> None:
    broken = columns | {"jpg_0": [*columns["jpg_0"][:5], b"broken", *columns["jpg_0"][6:]]}
    source = open_pairs(write_parquet(tmp_path / "pairs.parquet", broken))
    with pytest.raises(UserError, match=r"pairs\.parquet:5: .*sipo data check"):
        encode(source, tmp_path / "cache")


def test_data_without_rejected_members(tmp_path: Path, columns: dict[str, list]) -> None:
    rows = []
    for n in range(30):
        (tmp_path / f"{n}.png").write_bytes(columns["jpg_0"][n])
        rows.append(json.dumps({"prompt": f"prompt {n % 9}", "chosen": f"{n}.png"}))
    (tmp_path / "sft.jsonl").write_text("\n".join(rows))
    encode(open_pairs(tmp_path / "sft.jsonl"), tmp_path / "cache")
    (chosen,) = Cache(tmp_path / "cache").get(3).members
    assert chosen.media.shape == (2, 2, 3, 4, 4)


@pytest.mark.parametrize("family", [tiny.stable_diffusion, tiny.stable_diffusion_xl])
def test_a_real_pipeline(family, source: PairSource, columns: dict[str, list], tmp_path: Path) -> None:
    """Oracle: the pipeline's own VAE and prompt encoding, called directly, one pair at a time."""
    model = ModelConfig(path=str(family(tmp_path / "model")))
    backbone = load_backbone(model, torch.device("cpu"), torch.float32, encoders=False)
    encode(source, tmp_path / "cache", backbone, crop="center", flip=False)
    cache = Cache(tmp_path / "cache")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "model")
    for row in (1, 28):
        sample = cache.get(cache.position(row))
        winner = columns["jpg_0" if row % 2 == 0 else "jpg_1"][row]
        with torch.no_grad():
            posterior = pipeline.vae.encode(load_pixels(winner, SIZE)[0][None]).latent_dist
            texts = pipeline.encode_prompt(
                [f"prompt {row % 9}"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        torch.testing.assert_close(sample.members[0].media[0], torch.stack([posterior.mean, posterior.logvar], 1)[0])
        found = cache.conditioning(sample.prompt)
        torch.testing.assert_close(found["encoder_hidden_states"], texts[0][0])
        if "text_embeds" in found:
            torch.testing.assert_close(found["text_embeds"], texts[2][0])
    assert (backbone.pipeline.vae, backbone.pipeline.text_encoder) == (None, None)  # let go of again


# videos, and shards of bounded size


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(source: PairSource, tmp_path: Path, dtype: CacheType) -> None:
    """Oracle: the float32 cache, rounded. Both are read as float32; texts keep their dtype, and what is half already is as it was."""
    encode(source, tmp_path / "whole")
    encode(source, tmp_path / "half", dtype=dtype, num_workers=2)
    whole, half = Cache(tmp_path / "whole"), Cache(tmp_path / "half")
    kind = getattr(torch, dtype)
    for position in (0, 13, 25):
        a, b = whole.get(position), half.get(position)
        assert (a.id, a.prompt, a.strength) == (b.id, b.prompt, b.strength)
        for one, other in zip(a.members, b.members, strict=True):
            assert torch.equal(one.media.to(kind).float(), other.media)
            assert other.media.dtype == torch.float32
            assert torch.equal(one.micro_conditioning, other.micro_conditioning)
        one, other = whole.conditioning(a.prompt), half.conditioning(a.prompt)
        assert torch.equal(one["prompt_embeds"], other["prompt_embeds"])
        assert torch.equal(one["pooled"].to(kind).float(), other["pooled"])
        assert [text.dtype for text in other.values()] == [text.dtype for text in one.values()]
    shard = safetensors.torch.load_file(tmp_path / "half" / "pairs-00000.safetensors")
    assert {name: tensor.dtype for name, tensor in shard.items() if name in ("chosen", "rejected")} == {
        "chosen": kind,
        "rejected": kind,
    }
    encode(source, tmp_path / "again", dtype=dtype)
    assert contents(tmp_path / "again") == contents(tmp_path / "half")
    with pytest.raises(UserError, match=f"stored in: None in the cache, {dtype} here"):
        encode(source, tmp_path / "whole", dtype=dtype)


def test_what_half_precision_cannot_hold_is_refused(source: PairSource, tmp_path: Path) -> None:
    class Large(FakeEncoder):
        def encode_prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
            return {"pooled": torch.full((len(prompts), 1), 1e5)}

    with pytest.raises(UserError, match=r"data\.cache_dtype: float16 .* larger ones in pooled; use bfloat16"):
        encode(source, tmp_path / "cache", Large(), dtype="float16")
    encode(source, tmp_path / "cache", Large(), dtype="bfloat16")


def test_shards_are_bounded_in_bytes(source: PairSource, tmp_path: Path) -> None:
    """A pair of 16 x 16 here: 2 members, 2 orientations, mean and variance of 3 x 4 x 4 floats: 1,536 bytes. A prompt:
    24 halves and a float, 52 bytes."""
    encode(source, tmp_path, pairs_per_shard=512, prompts_per_shard=128, shard_bytes=5 * 1536 + 1500)
    assert (Cache(tmp_path).plan.pairs_per_shard, Cache(tmp_path).plan.prompts_per_shard) == (5, 128)
    encode(source, tmp_path / "small", shard_bytes=52 * 3)
    small = Cache(tmp_path / "small")
    assert (small.plan.pairs_per_shard, small.plan.prompts_per_shard) == (1, 3)
    small.verify()
    encode(source, tmp_path / "many")
    assert (Cache(tmp_path / "many").plan.pairs_per_shard, Cache(tmp_path / "many").plan.prompts_per_shard) == (4, 128)
    assert torch.equal(small.get(9).members[0].media, Cache(tmp_path / "many").get(9).members[0].media)
    assert torch.equal(small.conditioning(7)["pooled"], Cache(tmp_path / "many").conditioning(7)["pooled"])
