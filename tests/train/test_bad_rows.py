"""`data.on_bad_rows: skip` trains on the sound rows, whatever the others hold, and records all of them."""

import json
import os

import pytest
from support.configs import changed
from support.pictures import picture
from support.runs import train_raw

from sipo.errors import UserError

BAD = ["x" * 300 + ".png", "\ud800.png", "a\0.png", "pipe.png"]


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_passes_over_rows_with_names_that_no_file_can_have(raw_config, tmp_path, cached):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture(n, (16, 16)))
    os.mkfifo(tmp_path / "pipe.png")
    rows = [{"prompt": "p", "chosen": f"{n}.png", "rejected": f"{n + 1}.png"} for n in (0, 1)]
    rows += [{"prompt": "q", "chosen": "0.png", "rejected": name} for name in BAD]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = changed(raw_config, f"data.path={tmp_path / 'pairs.jsonl'}", "train.num_steps=2")
    with pytest.raises(UserError, match="4 of 6 rows are bad"):
        train_raw(raw)
    cache = f"data.cache={tmp_path / 'cache'}" if cached else "data.cache=null"
    run = train_raw(changed(raw, "data.on_bad_rows=skip", cache))
    assert [line["step"] for line in run.read_metrics("train")] == [1, 2]
    found = json.loads(run.data.read_text("utf-8"))["problems"]
    assert [problem["row"] for problem in found] == [f"pairs.jsonl:{n}" for n in (3, 4, 5, 6)]
