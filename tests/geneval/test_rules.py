"""The judge against a second writing of GenEval's rules (numpy, after the published description), and case by case."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipo.geneval.rules import Detection, judge, relations

CLASSES, TINTS = ["cat", "dog", "cup"], ["red", "blue", None]


def oracle_relations(a, b):
    a, b = np.array(a, float).reshape(2, 2), np.array(b, float).reshape(2, 2)
    offset = a.mean(0) - b.mean(0)
    size = np.abs(a[1] - a[0]) + np.abs(b[1] - b[0])
    kept = np.clip(np.abs(offset) - 0.1 * size, 0, None) * np.sign(offset)
    if (np.abs(kept) < 1e-3).all():
        return set()
    x, y = kept / np.sqrt((offset**2).sum())
    return {n for n, v in (("left of", -x), ("right of", x), ("above", -y), ("below", y)) if v > 0.5}


def oracle(metadata, objects):
    """Correct or not; a failed clause leaves no group to stand in a relation to."""
    verdicts, groups = [], {}
    for number, clause in enumerate(metadata["include"]):
        members = list(objects.get(clause["class"], ()))[0 : clause["count"]]
        holds = len(members) == clause["count"]
        if holds and "color" in clause:
            holds = sum(d.color == clause["color"] for d in members) >= clause["count"]
        if holds and "position" in clause:
            name, target = clause["position"]
            anchor = groups.get(target)
            holds = anchor is not None and all(name in oracle_relations(d.box, o.box) for d in members for o in anchor)
        if holds:
            groups[number] = members
        verdicts.append(holds)
    verdicts += [len(objects.get(c["class"], ())) < c["count"] for c in metadata.get("exclude", ())]
    return all(verdicts)


corner = st.floats(0, 64, allow_nan=False).map(lambda v: round(v, 2))
detection = st.builds(Detection, st.tuples(corner, corner, corner, corner), st.floats(0, 1), st.sampled_from(TINTS))
objects_found = st.dictionaries(st.sampled_from(CLASSES), st.lists(detection, max_size=4))


@st.composite
def metadata_of(draw):
    clauses = []
    for number in range(draw(st.integers(1, 4))):
        clause = {"class": draw(st.sampled_from(CLASSES)), "count": draw(st.integers(1, 3))}
        if draw(st.booleans()):
            clause["color"] = draw(st.sampled_from(["red", "blue"]))
        if number and draw(st.booleans()):
            relation = draw(st.sampled_from(["left of", "right of", "above", "below"]))
            clause["position"] = [relation, draw(st.integers(0, number - 1))]
        clauses.append(clause)
    banned = st.fixed_dictionaries({"class": st.sampled_from(CLASSES), "count": st.integers(1, 4)})
    exclude = draw(st.lists(banned, max_size=2))
    return {"include": clauses} | ({"exclude": exclude} if exclude else {})


@settings(max_examples=600)
@given(metadata_of(), objects_found)
def test_agrees_with_a_second_writing_of_the_rules(metadata, objects):
    verdict = judge(metadata, objects)
    assert verdict.correct == oracle(metadata, objects)
    assert verdict.correct == (not verdict.reasons)


@settings(max_examples=400)
@given(st.tuples(*[corner] * 4), st.tuples(*[corner] * 4))
def test_relations_agree_and_mirror(a, b):
    assert relations(a, b) == oracle_relations(a, b)
    mirror = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert relations(b, a) == {mirror[name] for name in relations(a, b)}


def at(x, y, color=None, half=5.0, score=0.9):
    return Detection((x - half, y - half, x + half, y + half), score, color)


def test_a_missing_class_fails_and_says_what_was_found():
    verdict = judge({"include": [{"class": "cat", "count": 2}]}, {"cat": [at(0, 0)]})
    assert not verdict.correct
    assert "cat" in verdict.reasons[0]
    assert "found 1" in verdict.reasons[0]
    assert not judge({"include": [{"class": "cat", "count": 1}]}, {}).correct


def test_only_the_most_confident_are_judged():
    """The second cat is blue, but the clause asks for one, and looks at the first alone."""
    clause = {"include": [{"class": "cat", "count": 1, "color": "blue"}]}
    assert not judge(clause, {"cat": [at(0, 0, "red"), at(20, 0, "blue")]}).correct
    assert judge(clause, {"cat": [at(20, 0, "blue"), at(0, 0, "red")]}).correct


def test_too_many_fail_only_where_excluded():
    cats = {"cat": [at(0, 0), at(20, 0), at(40, 0)]}
    assert judge({"include": [{"class": "cat", "count": 2}]}, cats).correct
    banned = {"include": [{"class": "cat", "count": 2}], "exclude": [{"class": "cat", "count": 3}]}
    assert not judge(banned, cats).correct
    assert judge(banned, {"cat": cats["cat"][:2]}).correct


def test_clauses_of_one_class_do_not_compete_for_objects():
    """GenEval's clauses are independent: two clauses for one cat are both met by the same cat."""
    metadata = {"include": [{"class": "cat", "count": 1}, {"class": "cat", "count": 1, "color": "red"}]}
    assert judge(metadata, {"cat": [at(0, 0, "red")]}).correct


def test_a_position_that_refers_to_a_failed_clause_fails():
    metadata = {
        "include": [
            {"class": "cat", "count": 1, "color": "red"},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ]
    }
    verdict = judge(metadata, {"cat": [at(40, 0, "blue")], "dog": [at(0, 0)]})
    assert not verdict.correct
    assert len(verdict.reasons) == 2
    assert "no target" in verdict.reasons[1]


def test_a_position_holds_against_every_target():
    metadata = {"include": [{"class": "cat", "count": 2}, {"class": "dog", "count": 1, "position": ["left of", 0]}]}
    dog = {"dog": [at(20, 0)]}
    assert judge(metadata, {"cat": [at(40, 0), at(60, 0)]} | dog).correct
    assert not judge(metadata, {"cat": [at(40, 0), at(0, 0)]} | dog).correct


@pytest.mark.parametrize(
    ("dx", "dy", "expected"),
    [
        (10, 0, {"right of"}),  # shrunk to 8, over 10: 0.8
        (0, -10, {"above"}),
        (1.9, 0, set()),  # within a tenth of both sizes
        (3.9, 0, set()),  # shrunk to 1.9, over 3.9: 0.49, not beyond a half
        (4.1, 0, {"right of"}),
        (-20, 20, {"left of", "below"}),  # diagonal: both
        (20, 9, {"right of"}),
        (0, 0, set()),
    ],
)
def test_relation_by_hand(dx, dy, expected):
    """Boxes of 10 x 10: each component shrinks by 0.1 x 20 = 2."""
    assert relations(at(dx, dy).box, at(0, 0).box) == expected
