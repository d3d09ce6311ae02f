"""Planted careless annotators are found, careful ones are left alone."""

import numpy as np
import pytest

from sipo.annotate.careless import Record, all_flags, flags


def careful(rng: np.random.Generator, **changed) -> Record:
    votes = 200
    record = {
        "num_due": votes, "num_answered": votes, "left": rng.random(170) < 0.5,
        "seconds": rng.lognormal(1.6, 0.5, votes), "repeats": rng.random(15) < 0.85, "checks": rng.random(10) < 0.98,
        "others": rng.random(150) < 0.75,
    }  # fmt: skip
    return Record(**{name: [*map(type_of(name), value)] if hasattr(value, "__len__") else value
                     for name, value in (record | changed).items()})  # fmt: skip


def type_of(name: str) -> type:
    return float if name == "seconds" else bool


def test_careful_people_are_left_alone():
    rng = np.random.default_rng(0)
    found = all_flags({str(n): careful(rng) for n in range(200)}, closed=True)
    assert sum(bool(each) for each in found.values()) <= 6  # of 200


@pytest.mark.parametrize(
    ("kind", "planted", "words"),
    [
        ("side", {"left": np.arange(170) < 160}, "left side in 160 of 170"),
        ("side", {"left": np.arange(170) < 5}, "right side in 165 of 170"),
        ("fast", {"seconds": np.where(np.arange(200) < 100, 0.4, 5.0)}, "100 of 200 answers in under 1 s"),
        ("repeats", {"repeats": np.arange(15) < 7}, "7 of 15"),
        ("checks", {"checks": np.arange(10) < 5}, "5 of 10"),
        ("guesses", {"others": np.arange(150) < 55}, "55 of 150"),
        ("unanswered", {"num_answered": 100}, "100 of 200"),
    ],
)
def test_the_planted_are_found_with_the_evidence(kind, planted, words):
    rng = np.random.default_rng(1)
    people = {str(n): careful(rng) for n in range(11)} | {"planted": careful(rng, **planted)}
    found = all_flags(people, closed=True)
    assert kind in {flag.kind for flag in found["planted"]}
    assert any(words in flag.evidence for flag in found["planted"])


def test_one_who_guesses_is_found_by_checks_and_repeats():
    rng, found = np.random.default_rng(2), 0
    for _ in range(50):
        guess = careful(rng, repeats=rng.random(15) < 0.4, checks=rng.random(10) < 0.5, others=rng.random(150) < 0.42)
        found += bool(all_flags({"guess": guess} | {str(n): careful(rng) for n in range(11)})["guess"])
    assert found >= 48


def test_few_votes_tell_nothing():
    assert flags(Record(200, 5, left=[True] * 5, seconds=[0.1] * 5, checks=[False] * 2)) == []
    assert flags(Record(200, 5)) == []
