"""A cache of pairs with sources holds what the model reads of them, per pair and orientation, and data without sources nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.folders import contents
from support.pictures import FakeEncoder, picture

from sipo.data.batches import Slot, collate
from sipo.data.cache.encode import _item_bytes, encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs, MediaPairs
from sipo.data.draws import draw_augmentation
from sipo.data.media.load import load_pixels
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.size import Size

SIZE = Size(16, 16)
ROWS = list(range(7))


class Editor(FakeEncoder):
    """What it reads of a source depends on its pixels and, as in models whose text encoder sees it, on the prompt."""

    def encode_source(self, pixels: torch.Tensor, prompts: list[str]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        return {"seen": torch.nn.functional.avg_pool2d(pixels, 4) + lengths.view(-1, 1, 1, 1), "length": lengths}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    lines = []
    for n in ROWS:
        names = {member: f"{n}-{member}.png" for member in ("chosen", "rejected", "source")}
        for place, (member, name) in enumerate(names.items()):
            (folder / name).write_bytes(picture(3 * n + place, (34, 20) if member == "source" else (20, 24)))
        lines.append({"prompt": "long " * (n % 3) + "prompt", **names})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_pairs(folder)


def encode(source, out: Path, encoder: FakeEncoder | None = None, **options) -> Cache:
    settings = {"crop": "random", "flip": True, "batch_size": 2, "seed": 1, "pairs_per_shard": 3}
    encode_cache(encoder or Editor(), EncodeRequest(source, ROWS, SIZE, **(settings | options)), out)
    return Cache(out)


def test_what_is_stored_is_what_the_encoder_gives_of_the_same_crop(source, tmp_path):
    cache = encode(source, tmp_path / "cache")
    for row in ROWS:
        sample, pair = cache.get(cache.position(row)), source[row]
        crop = draw_augmentation(1, 0, source.id(row), False, 0.0).crop
        pixels = load_pixels(pair.source, SIZE, crop).media[None]
        for orientation, view in enumerate((pixels, pixels.flip(-1))):
            expected = Editor().encode_source(view, [pair.prompt])
            assert sample.source.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(sample.source[name][orientation], value[0])
                assert sample.source[name].dtype == value.dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_are_narrowed_and_read_as_float32(source, tmp_path, dtype):
    wide, narrow = encode(source, tmp_path / "wide"), encode(source, tmp_path / "narrow", dtype=dtype)
    one, other = wide.get(0).source, narrow.get(0).source
    assert torch.equal(one["seen"].to(getattr(torch, dtype)).float(), other["seen"])
    assert torch.equal(one["length"], other["length"])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_the_planned_size_is_the_size(source, tmp_path, flip, empty):
    """Of tensors: micro-conditioning and strength, which are not counted, come to 36 bytes of a member's orientation or less."""
    request = EncodeRequest(source, ROWS, SIZE, flip=flip, empty_prompts=empty)
    cache = encode(source, tmp_path / "cache", flip=flip, empty_prompts=empty)
    with safe_open(str(tmp_path / "cache" / cache.plan.pair_shards[0]), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    counted = sum(t[0].nbytes for name, t in tensors.items() if not name.endswith("_geometry") and name != "strength")
    assert _item_bytes(Editor(), request)[0] == counted


def test_cached_pairs_are_the_pairs_themselves(source, tmp_path):
    """Flip and dropped prompts as without a cache; what is read of a source is that of its own prompt."""
    cached = CachedPairs(encode(source, tmp_path / "cache", crop="center"), ROWS, flip=True, seed=3)
    plain = MediaPairs(source, ROWS, SIZE, flip=True, seed=3)
    slots = [Slot(index, epoch, index) for epoch in (0, 1, 2) for index in ROWS]
    one, other = (collate([pairs[slot] for slot in slots]) for pairs in (cached, plain))
    assert one.source is None
    assert other.source is not None
    assert other.source.shape == (len(slots), 3, 16, 16)
    expected = Editor().encode_source(other.source, other.prompts)
    for name, value in expected.items():
        torch.testing.assert_close(one.conditioning[name], value)
    mirrored = [draw_augmentation(3, slot.epoch, source.id(slot.index), True, 0.0).flip for slot in slots]
    assert 0 < sum(mirrored) < len(slots)


def test_a_dropped_prompt_is_dropped_from_what_is_read_of_the_source(source, tmp_path):
    """Where a text encoder reads both: in the cache as without it."""
    cached = CachedPairs(
        encode(source, tmp_path / "cache", crop="center", empty_prompts=True),
        ROWS,
        flip=True,
        prompt_dropout=0.5,
        seed=3,
    )
    plain = MediaPairs(source, ROWS, SIZE, flip=True, prompt_dropout=0.5, seed=3)
    slots = [Slot(index, epoch, index) for epoch in (0, 1, 2) for index in ROWS]
    one, other = (collate([pairs[slot] for slot in slots]) for pairs in (cached, plain))
    assert one.prompts == other.prompts
    assert 0 < one.prompts.count("") < len(slots)
    for name, value in Editor().encode_source(other.source, other.prompts).items():
        torch.testing.assert_close(one.conditioning[name], value)


def test_a_cache_without_empty_prompts_is_not_taken_for_one_with_them(source, tmp_path):
    encode(source, tmp_path / "cache")
    with pytest.raises(UserError, match="empty prompts: None in the cache, True here"):
        encode(source, tmp_path / "cache", empty_prompts=True)


def test_text_embeddings_keep_their_dtype(source, tmp_path):
    """As those of prompts do, whatever the cache's; what the cache itself narrowed is read as float32."""

    class Half(Editor):
        def encode_source(self, pixels, prompts):
            found = super().encode_source(pixels, prompts)
            return found | {"seen": found["seen"].half(), "latents": found["seen"]}

    for dtype in ("float32", "float16", "bfloat16"):
        read = encode(source, tmp_path / dtype, Half(), dtype=dtype).get(0).source
        assert (read["seen"].dtype, read["latents"].dtype) == (torch.float16, torch.float32)


def test_parts_of_a_shard_hold_them_too(source, tmp_path):
    """Killed while it encodes the third batch; what was kept goes into the same bytes."""

    class Dies(Editor):
        def encode_source(self, pixels, prompts):
            if len(self.prompts) and self.pictures > 10:
                raise KeyboardInterrupt
            return super().encode_source(pixels, prompts)

    encode(source, tmp_path / "whole", pairs_per_shard=7, batch_size=2, keep_every=0.0)
    with pytest.raises(KeyboardInterrupt):
        encode(source, tmp_path / "killed", Dies(), pairs_per_shard=7, batch_size=2, keep_every=0.0)
    assert list((tmp_path / "killed").glob("*.part-*"))
    encode(source, tmp_path / "killed", pairs_per_shard=7, batch_size=2, keep_every=0.0)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_numbers_that_are_not_finite_are_refused_with_their_pairs(source, tmp_path):
    class Broken(Editor):
        def encode_source(self, pixels, prompts):
            found = super().encode_source(pixels, prompts)
            found["seen"][:, 0, 0, 0] = torch.where(found["length"] > 11, torch.nan, 0.0)
            return found

    with pytest.raises(UserError, match=r"the encoders give NaN or infinity for 1 sources \(pairs\.jsonl:3\)"):
        encode(source, tmp_path / "cache", Broken())


def test_data_without_sources_is_stored_as_ever(source, tmp_path):
    """No tensor more, and an encoder that knows no sources will do."""
    lines = [
        json.dumps({k: v for k, v in json.loads(line).items() if k != "source"})
        for line in source.path.read_text().splitlines()
    ]
    path = source.path.parent / "without.jsonl"
    path.write_text("\n".join(lines))
    cache = encode(open_pairs(path), tmp_path / "cache", FakeEncoder())
    assert cache.get(0).source == {}
    with safe_open(str(tmp_path / "cache" / cache.plan.pair_shards[0]), "pt") as file:
        assert sorted(file.keys()) == ["chosen", "chosen_geometry", "rejected", "rejected_geometry", "strength"]
