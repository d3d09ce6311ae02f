"""Validation holds out whole prompts."""

from pathlib import Path

import pytest
from support.pictures import pick_a_pic, write_parquet

from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.rows import PairSource
from sipo.data.pairs.split import split_validation
from sipo.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> PairSource:
    columns = pick_a_pic(60, prompts=20)
    columns["caption"][40] = " PROMPT 0\n"  # row 40 has prompt 0 in other clothes
    return open_pairs(write_parquet(tmp_path / "pairs.parquet", columns))


def test_no_prompt_stands_on_both_sides(source: PairSource) -> None:
    usable = [row for row in range(60) if row != 7]
    train, held_out = split_validation(source, usable, 0.25, seed=0)
    assert sorted(train + held_out) == usable
    assert (train, held_out) == (sorted(train), sorted(held_out))
    sides = [{prompt.strip().lower() for prompt in source.prompts(side)} for side in (train, held_out)]
    assert not sides[0] & sides[1]
    assert 0.15 < len(held_out) / len(usable) <= 0.26


def test_it_is_the_same_every_time_and_another_with_another_seed(source: PairSource) -> None:
    usable = list(range(60))
    assert split_validation(source, usable, 0.2, 1) == split_validation(source, usable, 0.2, 1)
    assert split_validation(source, usable, 0.2, 1) != split_validation(source, usable, 0.2, 2)


def test_a_small_share_holds_out_one_prompt(source: PairSource) -> None:
    train, held_out = split_validation(source, list(range(60)), 0.001, 0)
    assert (len(train), len(held_out)) == (57, 3)


def test_impossible_splits(source: PairSource) -> None:
    with pytest.raises(UserError, match="has only one"):
        split_validation(source, [0, 20], 0.5, 0)
    with pytest.raises(UserError, match="between 0 and 1"):
        split_validation(source, [0, 1], 1.0, 0)
