"""No vote lost, doubled or over-collected: many people, double clicks, two tabs, broken lines, and a server that is killed."""

import pytest
from support.load import killed_while_working
from support.studies import small_study

from sipo.annotate.study import Plan


def test_votes_survive_a_kill(tmp_path):
    study = small_study(tmp_path, 30, plan=Plan(1, 8, 8))
    people = killed_while_working(study, 1, 0.5)
    assert sum(person.refused for person in people) > 0  # there were second tabs, and they lost


@pytest.mark.slow
def test_sixty_four_people_and_eight_kills(tmp_path):
    study = small_study(tmp_path, 200, plan=Plan(1, 64, 64))
    people = killed_while_working(study, 8, 5.0)
    assert sum(len(person.kept) for person in people) >= 0.9 * 64 * 200
