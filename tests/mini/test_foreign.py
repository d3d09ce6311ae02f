"""Foreign pairs: right against wrong, in a style that is not the world's."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from sipo.data.pairs.open import open_pairs
from sipo.geneval.rules import judge
from sipo.mini.flaws import truth
from sipo.mini.foreign import draw_pair, hatched, write_foreign_pairs
from sipo.mini.prompts import sample_prompts
from sipo.mini.scenes import sample_scene
from sipo.mini.wording import parse
from sipo.mini.world import render


def test_the_lines_are_on_the_background_alone():
    scene = sample_scene(parse("a photo of a red star"), np.random.default_rng(0))
    plain, lined = (np.asarray(draw(scene, np.random.default_rng(1))).astype(int) for draw in (render, hatched))
    background = (plain == np.array(scene.background)).all(axis=-1)
    changed = (plain != lined).any(axis=-1)
    assert not changed[~background].any()
    assert 0.45 < changed[background].mean() < 0.55
    assert judge(parse("a photo of a red star"), truth(scene)).correct


@pytest.mark.parametrize("prompt", sample_prompts(60, 3), ids=lambda prompt: prompt["prompt"])
def test_the_prompt_is_true_of_one_and_false_of_the_other(prompt):
    chosen, rejected = draw_pair(prompt, np.random.default_rng(5))
    assert judge(prompt, truth(chosen)).correct
    assert not judge(prompt, truth(rejected)).correct


def test_pairs_are_drawn_by_the_seed_and_training_reads_them(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_foreign_pairs(tmp_path / f"{name}.parquet", 24, seed)
    contents = [pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]
    assert len(open_pairs(tmp_path / "a.parquet")) == 24
