"""What a start does not do again where nothing has changed: check, convert, tokenize, read the cache."""

import pytest
from support.configs import changed
from support.opens import opened
from support.runs import train_raw

from sipo.backbones import captions
from sipo.data.pairs import check, parquet
from sipo.errors import UserError


def refuse(what):
    def call(*_args, **_options):
        raise AssertionError(f"{what} again")

    return call


@pytest.fixture
def raw(raw_config, tmp_path):
    return changed(raw_config, f"data.cache={tmp_path / 'cache'}", "data.validation=0.3", "train.num_steps=1")


@pytest.mark.parametrize("resumes", [True, False])
def test_a_second_start_opens_no_shard_and_no_row(raw, tmp_path, monkeypatch, resumes):
    train_raw(raw)
    monkeypatch.setattr(check, "_judge", refuse("a row is checked"))
    monkeypatch.setattr(parquet, "convert", refuse("a table is converted"))
    monkeypatch.setattr(captions, "_count", refuse("captions are counted"))
    with opened() as files:
        train_raw(changed(raw, "train.num_steps=2") if resumes else changed(raw, f"run={tmp_path / 'other'}"))
    found = {file.name for file in files if file.parent == tmp_path / "cache"}
    assert found == {"manifest.json", "plan.json", "verified.json"}


def test_an_altered_shard_is_found_at_the_next_start(raw, tmp_path):
    train_raw(raw)
    shard = tmp_path / "cache" / "pairs-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"pairs-00000\.safetensors does not match its checksum"):
        train_raw(changed(raw, "train.num_steps=2"))
