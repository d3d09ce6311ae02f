"""The disk fills up while a training writes: one line, no half-written files, and the same command goes on once there is room."""

import errno

import pytest
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from support.configs import changed

from sipo.config import parse_config
from sipo.errors import DiskFull
from sipo.train import checkpoint, export
from sipo.train.loop import train

QUIET = Console(quiet=True)


def no_room(path, *_):
    """As safetensors does it: half of the file, then the system's error in its own words."""
    path.write_bytes(b"half")
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("what", ["checkpoint", "manifest", "weights", "metrics"])
def test_training_goes_on_once_there_is_room(raw_config, tmp_path, monkeypatch, what):
    raw = changed(
        raw_config, "train.num_steps=3", "train.checkpoint_every=1", "train.keep_checkpoints=9", "train.sample_every=0"
    )
    whole = train(parse_config(changed(raw, f"run={tmp_path / 'whole'}")), QUIET)
    run = tmp_path / "run"
    full = changed(raw, f"run={run}")
    with monkeypatch.context() as patch:
        write, count = checkpoint.write_pieces, 0

        def at_the_third(*arguments):
            nonlocal count
            count += 1
            (no_room if count == 3 else write)(*arguments)

        def refuse(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        if what == "checkpoint":
            patch.setattr(checkpoint, "write_pieces", at_the_third)
        elif what == "manifest":
            patch.setattr(checkpoint, "write_atomic", refuse)
        elif what == "weights":
            patch.setattr(export, "save_policy", refuse)
        else:
            patch.setattr("sipo.train.record.append", refuse)
        with pytest.raises(DiskFull) as error:
            train(parse_config(full), QUIET)
    kept = {"checkpoint": "step 2", "weights": "step 3"}.get(what, "There is no checkpoint yet")
    assert "the disk is full" in str(error.value)
    assert kept in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not list(run.rglob("*.tmp")) + list(run.rglob(".*.tmp"))
    train(parse_config(full), QUIET)
    after, expected = (load_file(next(path.glob("weights/*.safetensors"))) for path in (run, whole.path))
    assert all(torch.equal(after[name], expected[name]) for name in expected)
