"""Solo mode as it is used: the page's requests, a kill in the middle, the manifest that `sipo train` reads."""

import io
import json
import secrets
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.studies import Session, folder_of_samples

from sipo.annotate.solo import SoloDesk, SoloRequest, open_prompts
from sipo.annotate.store import Refused
from sipo.data.pairs.check import check_pairs
from sipo.errors import UserError


def samples(root: Path, count: int = 4, prompts: int = 3) -> list[Path]:
    return [
        folder_of_samples(root / f"s{n}", 40 + 40 * n, [f"prompt {p}" for p in range(prompts)]) for n in range(count)
    ]


def desk(root: Path, **options) -> SoloDesk:
    request = SoloRequest([root / f"s{n}" for n in range(4)], root / "pairs.jsonl", **options)
    made = SoloDesk(request, open_prompts(request), "token")
    made.read_log()
    return made


def brighter(item, voter) -> str:
    levels = [mean_level(voter.look(name)) for name in item["media"]]
    return "left" if levels[0] > levels[1] else "right"


def mean_level(content: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float).mean())


def test_a_session_killed_in_the_middle_goes_on_and_writes_the_pairs(tmp_path):
    folders, out = samples(tmp_path), tmp_path / "pairs.jsonl"
    first = Session(folders, out)
    for _ in range(5):
        item = first.voter.state()["items"][0]
        first.voter.vote(item["slot"], brighter(item, first.voter)).raise_for_status()
    first.process.kill()
    first.process.wait()
    second = Session(folders, out)
    assert "5 of about 12 looks done" in second.greeting
    assert second.voter.all(brighter) == 7
    second.process.send_signal(2)
    assert "12 looks" in second.process.communicate(timeout=30)[0]
    assert second.process.returncode == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 12
    assert all(int(line["chosen"][1]) > int(line["rejected"][1]) for line in lines)  # s3 is the brightest
    assert len(check_pairs(out, progress=False).usable) == 12


def test_undo_ties_and_bad(tmp_path):
    samples(tmp_path)
    mine = desk(tmp_path)
    me = mine.person("token")
    assert mine.person("wrong") is None
    ids = [secrets.token_hex(16) for _ in range(3)]
    for vote, answer in zip(ids, ("left", "tie", "bad"), strict=True):
        mine.vote(me, mine.look(me)["items"][0]["slot"], vote, answer, 1.0)
    slot = mine.look(me)["items"][0]["slot"]
    mine.vote(me, slot, ids[-1], "left", 1.0)  # sent again
    assert mine.look(me)["answered"] == 3
    mine.undo(me, ids[-1])
    mine.undo(me, ids[-1])
    assert mine.look(me)["answered"] == 2
    assert desk(tmp_path).lines == mine.lines
    with pytest.raises(Refused):
        mine.vote(me, 0, secrets.token_hex(16), "left", 1.0)  # answered already


def test_the_next_item_is_the_one_foreseen(tmp_path):
    samples(tmp_path)
    mine = desk(tmp_path)
    me, foreseen = mine.person("token"), None
    agreed = []
    while items := mine.look(me)["items"]:
        if foreseen is not None:
            agreed.append(items[0]["slot"] == foreseen)
        foreseen = items[1]["slot"] if len(items) > 1 else None
        mine.vote(me, items[0]["slot"], secrets.token_hex(16), "left", 1.0)
    assert sum(agreed) >= 0.6 * len(agreed)


def test_samples_that_changed_since_are_refused(tmp_path):
    samples(tmp_path)
    mine = desk(tmp_path)
    me = mine.person("token")
    mine.vote(me, mine.look(me)["items"][0]["slot"], secrets.token_hex(16), "left", 1.0)
    request = SoloRequest([tmp_path / "s0", tmp_path / "s1"], tmp_path / "pairs.jsonl")
    with pytest.raises(UserError, match="1 answers on samples that these folders do not have"):
        SoloDesk(request, open_prompts(request), "token").read_log()


def test_what_cannot_be_judged_is_refused(tmp_path):
    one = folder_of_samples(tmp_path / "s", 40, ["a", "b"])
    with pytest.raises(UserError, match="No prompt has two samples"):
        open_prompts(SoloRequest([one], tmp_path / "pairs.jsonl"))
    (one / "00000.png").unlink()
    with pytest.raises(UserError, match="do not exist"):
        open_prompts(SoloRequest([one, one], tmp_path / "pairs.jsonl"))
