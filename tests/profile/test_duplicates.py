"""Near-duplicates: found exactly where a comparison of every two finds them, and whatever the encoding."""

import io

import numpy as np
from PIL import Image

from sipo.profile.duplicates import BITS, LEVELS, Mark, clusters, mark_of


def photo(seed: int) -> Image.Image:
    """Smooth colours, as pictures have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)


def test_encodings_and_sizes_of_a_picture_are_near_duplicates_and_other_pictures_are_not():
    pictures = [photo(seed) for seed in range(12)]
    buffer = io.BytesIO()
    pictures[3].save(buffer, "JPEG", quality=40)
    again = [Image.open(buffer), pictures[3].resize((97, 61)), pictures[7].resize((640, 480))]
    found = clusters([mark_of(each) for each in [*pictures, *again]]).tolist()
    assert found[12:] == [found[3], found[3], found[7]]
    assert len(set(found)) == 12


def test_another_colour_is_another_picture():
    grey = Image.new("RGB", (64, 64), (120, 120, 120))
    grey.paste((60, 60, 60), (10, 10, 30, 40))
    red = Image.merge(
        "RGB", [band.point(lambda v, s=shift: v + s) for band, shift in zip(grey.split(), (50, -24, -4), strict=True)]
    )
    marks = [mark_of(grey), mark_of(red)]
    assert marks[0].hash.__xor__(marks[1].hash).bit_count() <= BITS
    assert len(set(clusters(marks).tolist())) == 2


def test_flat_pictures_of_one_colour_are_alike():
    black, white = (Image.new("RGB", (n, n), colour) for n, colour in ((64, "black"), (50, "white")))
    assert clusters([mark_of(each) for each in (black, white, black.resize((9, 7)))]).tolist() == [0, 1, 0]


def test_clusters_are_the_components_of_all_comparisons(monkeypatch):
    monkeypatch.setattr("sipo.profile.duplicates.CHUNK", 500)
    rng = np.random.default_rng(0)
    hashes = [int(value) for value in rng.integers(0, 2**63, 60)]
    colours = [rng.integers(0, 256, 48, dtype=np.uint8) for _ in hashes]
    for _ in range(200):  # children of what is there, a few bits or levels away
        place = rng.integers(len(hashes))
        flipped = sum(1 << int(bit) for bit in rng.choice(63, rng.integers(0, 7), replace=False))
        hashes.append(hashes[place] ^ flipped)
        colours.append(np.clip(colours[place].astype(int) + rng.integers(-9, 10), 0, 255).astype(np.uint8))
    near = [
        [
            (a ^ b).bit_count() <= BITS and ((x.astype(int) - y) ** 2).mean() <= LEVELS**2
            for b, y in zip(hashes, colours, strict=True)
        ]
        for a, x in zip(hashes, colours, strict=True)
    ]
    reach = np.array(near)
    for _ in range(8):  # 2^8 steps
        reach = reach @ reach
    found = clusters([Mark(a, x.tobytes()) for a, x in zip(hashes, colours, strict=True)])
    np.testing.assert_array_equal(found[:, None] == found[None], reach)
    assert 60 < len(set(found.tolist())) < 200
