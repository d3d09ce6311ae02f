"""A training on pairs of the hub: the commit is on record, and a run resumes on what it has read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from support.configs import changed
from support.pictures import pick_a_pic
from support.runs import assert_same_results, train_raw

from sipo.errors import UsageError
from sipo.run import RunDir


def table(count: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(pick_a_pic(count)), sink)
    return sink.getvalue().to_pybytes()


def test_a_run_resumes_on_the_commit_that_it_has_read(hub, raw_config, monkeypatch, tmp_path):
    repository = hub.data_set("o/pairs", {"data/train-00000-of-00001.parquet": table(8)})
    first = repository.branches["main"]
    raw = changed(raw_config, "data.path=hf://datasets/o/pairs", "train.num_steps=2", "train.checkpoint_every=1")
    run: RunDir = train_raw(raw)
    assert json.loads(run.inputs.read_text())["the commit of data.path"] == first
    assert json.loads(run.data.read_text())["hub"] == {"address": "hf://datasets/o/pairs", "commit": first}
    more = changed(raw, "train.num_steps=3")

    repository.commit({"README.md": b"# now with a card"})  # the pairs are what they were
    train_raw(more)
    second = repository.branches["main"]
    assert json.loads(run.inputs.read_text())["the commit of data.path"] == second != first

    third = repository.commit({"data/train-00000-of-00001.parquet": table(9)})
    more = changed(raw, "train.num_steps=4")
    message = rf"data\.path: other content .* up to step 3 \(commit {second} of the hub, and there is {third} now\): add @{second} after OWNER/NAME"
    with pytest.raises(UsageError, match=message):
        train_raw(more)
    train_raw(changed(more, f"data.path=hf://datasets/o/pairs@{second}"))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    last = changed(more, "train.num_steps=5", f"data.path=hf://datasets/o/pairs@{second}")
    train_raw(last)
    assert_same_results(run, train_raw(changed(last, f"run={tmp_path / 'unbroken'}")), [5])
    again = changed(last, f"run={tmp_path / 'disk'}", f"data.path={tmp_path / 'pairs'}")
    (tmp_path / "pairs" / "data").mkdir(parents=True)
    (tmp_path / "pairs" / "data" / "train-00000-of-00001.parquet").write_bytes(table(8))
    assert_same_results(run, train_raw(again), [5])


def test_pairs_held_out_of_another_data_set(hub, raw_config):
    hub.data_set("o/train", {"pairs.parquet": table(6)})
    held_out = hub.data_set("o/held-out", {"pairs.parquet": table(2)})
    raw = changed(raw_config, "data.path=hf://datasets/o/train/pairs.parquet", "data.validation=hf://datasets/o/held-out",
                  "train.num_steps=1", "train.validate_every=1")  # fmt: skip
    run = train_raw(raw)
    assert json.loads(run.data.read_text())["validation"]["hub"]["commit"] == held_out.branches["main"]
    assert len(run.read_metrics("validation")) == 2
