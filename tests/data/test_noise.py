"""The noise behind the rows of pairs: seeds in order, and every reason why it is not known."""

import json

import pytest
import torch

from sipo.data.noise import sampled_noise
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.size import Size

SAMPLER = {"model": "flux", "height": 16, "width": 32, "num_inference_steps": 4}
SIZE = Size(16, 32)


@pytest.fixture
def source(tmp_path):
    """(changes to the rejected member's sampler) -> 3 pairs, of which the second has them."""

    def make(seed=21, **changes):
        rows = []
        for n in range(3):
            sampler = {**SAMPLER, **changes} if n == 1 else SAMPLER
            rows.append({"prompt": "p", "chosen": "a.png", "rejected": "b.png", "chosen_seed": 10 + n, "chosen_sampler": SAMPLER,
                         "rejected_seed": seed if n == 1 else 20 + n, "rejected_sampler": sampler})  # fmt: skip
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return open_pairs(tmp_path / "pairs.jsonl")

    return make


def test_seeds_are_those_of_the_rows(source):
    found = sampled_noise(source(), [2, 0], SIZE, 2)
    assert (found.seeds.tolist(), found.dtype, found.models) == ([[12, 22], [10, 20]], torch.float32, ("flux",))
    assert sampled_noise(source(None), [0, 1, 2], SIZE, 1).seeds.tolist() == [[10], [11], [12]]
    assert sampled_noise(source(2**63 - 1), [1], SIZE, 2).seeds.tolist() == [[11, 2**63 - 1]]


def test_half_precision_is_remembered(source, tmp_path):
    lines = source().path.read_text().replace('"flux"', '"flux", "noise": "bfloat16"')
    (tmp_path / "half.jsonl").write_text(lines)
    assert sampled_noise(open_pairs(tmp_path / "half.jsonl"), [0, 1], SIZE, 2).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("seed", "changes", "message"),
    [
        (None, {}, r"1 of 3 pairs lack it; the first, pairs\.jsonl:2: there is no rejected seed"),
        (-1, {}, "there is no rejected seed"),
        (1.5, {}, "there is no rejected seed"),
        (2**63, {}, "there is no rejected seed"),
        (5, {"height": 64}, r"the rejected member was sampled at height 64; the training is at 16 x 32"),
        (5, {"width": None}, "sampled at width None"),
        (5, {"kernel": "DDIM(eta=1.0)"}, "sampled with a trajectory"),
        (5, {"noise": "int8"}, "noise in int8, which is no floating-point type"),
        (5, {"noise": "bfloat16"}, r"^data\.noise: samplers drew noise in bfloat16 and float32"),
    ],
)
def test_what_is_not_known_is_told(source, seed, changes, message):
    with pytest.raises(UserError, match=message):
        sampled_noise(source(seed, **changes), [0, 1, 2], SIZE, 2)


def test_videos_were_sampled_at_that_length_and_rate(source):
    with pytest.raises(
        UserError, match=r"sampled at num_frames None, fps None; the training is at 16 x 32, 5 frames at 8 fps"
    ):
        sampled_noise(source(), [0], Size(16, 32, 5, 8.0), 2)
