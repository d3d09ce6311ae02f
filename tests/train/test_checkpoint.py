"""A checkpoint comes back exactly, or says which file is damaged."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sipo.errors import UserError
from sipo.train.checkpoint import MANIFEST, Checkpoint, load_checkpoint, save_checkpoint, saved_steps


def trained(steps: int = 3):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    optimizer = torch.optim.AdamW(weights, lr=0.1, betas=(0.8, 0.95), weight_decay=0.01)
    for _ in range(steps):
        sum(weight.square().sum() for weight in weights).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights, optimizer


def checkpoint_at(step: int) -> Checkpoint:
    weights, optimizer = trained()
    state = {f"w{i}": weight.detach() for i, weight in enumerate(weights)}
    return Checkpoint(
        step, state, optimizer.state_dict(), {"w0": torch.ones(2)}, {"skipped": 2, "scaler": {"scale": 65536.0}}
    )


def test_round_trip_continues_the_optimizer_exactly(tmp_path):
    saved = checkpoint_at(7)
    save_checkpoint(tmp_path, saved, keep=2)
    loaded = load_checkpoint(tmp_path, 7)
    assert loaded.counters == saved.counters
    assert loaded.ema["w0"].equal(saved.ema["w0"])
    weights, optimizer = trained()
    again = [torch.nn.Parameter(loaded.weights[f"w{i}"].clone()) for i in range(2)]
    other = torch.optim.AdamW(again, lr=0.5)
    other.load_state_dict(loaded.optimizer)
    for group, opt in ((weights, optimizer), (again, other)):
        sum(weight.square().sum() for weight in group).backward()
        opt.step()
    assert all(a.equal(b) for a, b in zip(weights, again, strict=True))


def test_only_complete_checkpoints_count_and_the_oldest_go(tmp_path):
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, checkpoint_at(step), keep=2)
    assert saved_steps(tmp_path) == [4, 6]
    (tmp_path / "000006" / MANIFEST).unlink()
    (tmp_path / ".000008.tmp").mkdir()
    assert saved_steps(tmp_path) == [4]
    assert saved_steps(tmp_path / "nowhere") == []


def test_a_leftover_of_the_same_step_is_replaced(tmp_path):
    (tmp_path / "000002").mkdir()
    (tmp_path / ".000002.tmp").mkdir()
    (tmp_path / ".000002.tmp" / "garbage").write_text("x")
    save_checkpoint(tmp_path, checkpoint_at(2), keep=2)
    assert load_checkpoint(tmp_path, 2).step == 2
    assert not (tmp_path / "000002" / "garbage").exists()


def test_a_damaged_file_is_named(tmp_path):
    folder = save_checkpoint(tmp_path, checkpoint_at(2), keep=2)
    name = "00001-of-00001.safetensors"
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_checkpoint(tmp_path, 2)


def test_a_step_that_is_not_kept(tmp_path):
    save_checkpoint(tmp_path, checkpoint_at(2), keep=2)
    with pytest.raises(UserError, match=r"no checkpoint of step 3; it has \[2\]"):
        load_checkpoint(tmp_path, 3)


def test_torchs_own_library_reads_it(tmp_path):
    """torch.distributed.checkpoint, whose form for pieces of tensors this is."""
    import warnings

    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    saved = checkpoint_at(2)
    folder = save_checkpoint(tmp_path, saved, keep=2)
    found = {f"weights.{name}": torch.zeros_like(weight) for name, weight in saved.weights.items()}
    with warnings.catch_warnings(action="ignore"):
        dcp.load(found, storage_reader=HuggingFaceStorageReader(str(folder)))
    assert all(found[f"weights.{name}"].equal(weight) for name, weight in saved.weights.items())


@pytest.mark.parametrize(("rows", "columns"), [((0, 5), (0, 4)), ((0, 2), (0, 4)), ((1, 4), (1, 3)), ((4, 5), (3, 4))])
def test_a_box_is_put_together_of_the_pieces_that_reach_into_it(tmp_path, rows, columns):
    """Pieces as three processes would write them, with another number of rows each."""
    from sipo.train.pieces import OFFSETS, box, pieces_of

    whole = torch.arange(20.0).reshape(5, 4)
    for number, (start, end) in enumerate([(0, 2), (2, 3), (3, 5)]):
        offsets = json.dumps({"w": {"saved_offsets": [start, 0]}})
        save_file({"w": whole[start:end].clone()}, tmp_path / f"{number}.safetensors", {OFFSETS: offsets})
    pieces = [piece for file in tmp_path.iterdir() for _, piece in pieces_of(file, "")]
    (a, b), (c, d) = rows, columns
    assert box(pieces, [a, c], [b - a, d - c]).equal(whole[a:b, c:d])
