"""How a training has its pairs encoded."""

import pytest
from support.configs import changed
from support.runs import train_raw

from sipo.backbones import Backbone


@pytest.mark.parametrize("most", [1, 3])
def test_a_cpu_encodes_as_many_pixels_at_once_as_it_is_fast_at(raw_config, tmp_path, monkeypatch, most):
    """Pictures of 16 x 16 pixels, in float32; by default 8 of 64 x 64 and 1 of 256 x 256."""
    sizes, encode = [], Backbone.encode_media
    monkeypatch.setattr(Backbone, "encode_media", lambda self, x: (sizes.append(len(x)), encode(self, x))[1])
    monkeypatch.setattr("sipo.train.inputs.CPU_BATCH", most * 4 * 3 * 16 * 16)
    train_raw(changed(raw_config, f"data.cache={tmp_path / 'cache'}", "data.max_pairs=6", "train.num_steps=1"))
    assert sizes == [1] + [most] * 2 * (6 // most)  # the first measures what a pair takes
