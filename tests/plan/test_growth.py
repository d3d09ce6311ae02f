"""The benchmark of growth reads what it made: a manifest, a remembered check and a cache that a training accepts."""

import re
from pathlib import Path

import pytest
from support.command_line import run
from support.configs import changed

from sipo.data.cache.read import Cache
from sipo.data.pairs import check
from sipo.data.pairs.open import open_pairs
from sipo.plan import growth
from sipo.yaml12 import write_yaml


def test_made_up_pairs_are_what_a_training_would_have_made(raw_config, tmp_path, monkeypatch):
    """The real check finds no fault in them but that they look alike; the cache's shards match their checksums, and a training
    takes all of it for its own: nothing is checked, nothing is encoded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    growth.make_data(raw_config, tmp_path, 600)
    source, cache = open_pairs(tmp_path / "pairs.jsonl"), Cache(tmp_path / "cache")
    assert (len(source), len(cache)) == (600, 600)
    assert set(check.check_pairs(source, progress=False).counts.items()) >= {("missing_file", 0), ("undecodable", 0)}
    assert len(set(source.prompts(list(range(600))))) == 600 // growth.PAIRS_PER_PROMPT + 1
    cache.verify()
    assert cache.get(599).id == source.id(599)
    assert cache.prompt(cache.get(599).prompt) == source.prompts([599])[0]
    monkeypatch.setattr(check, "_judge", lambda *_: 1 / 0)
    before = (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns
    seconds, _, memory = growth.first_update(raw_config, tmp_path, "run")
    assert seconds > 0
    assert memory > 100_000_000
    assert (tmp_path / "cache" / "manifest.json").stat().st_mtime_ns == before
    parts = growth.time_parts(raw_config, tmp_path)
    assert growth.PARTS.keys() - parts.keys() == {"first start", "second start", "elapsed"}


@pytest.mark.slow
def test_the_command(raw_config, tmp_path, monkeypatch, capfd):
    (tmp_path / "config.yaml").write_text(write_yaml(changed(raw_config, "data.workers=1")))
    code, printed, complaints = run(monkeypatch, capfd, "benchmark", tmp_path / "config.yaml", "--pairs", "200,100")
    assert code == 0, complaints
    assert "a cached pair" in printed
    assert re.search(r"┃ +200 ┃ +100 ┃", printed)
    assert not Path(raw_config["run"]).exists()
    code, _, complaints = run(monkeypatch, capfd, "benchmark", tmp_path / "config.yaml", "--pairs", "12,x")
    assert code == 2
    assert "should be numbers of at least 100" in complaints
