"""HPSv2's figures against numpy, in the way its evaluation script takes them."""

import numpy as np
import pytest

from sipo.evaluate.scores.hps_groups import benchmark_statistics, group_statistics


def test_agrees_with_hpsv2s_own_script():
    scores = np.random.default_rng(0).normal(0.27, 0.02, 800)
    groups = [np.mean(scores[i : i + 80]) for i in range(0, 800, 80)]
    found = group_statistics(scores.tolist())
    assert found.group_means == pytest.approx(groups)
    assert found.mean == pytest.approx(np.mean(groups))
    assert found.deviation == pytest.approx(np.std(groups))


def test_groups_are_runs_of_consecutive_prompts():
    found = group_statistics([0.0] * 80 + [1.0] * 720)
    assert found.group_means == (0.0,) + (1.0,) * 9
    assert found.mean == pytest.approx(0.9)
    assert found.deviation == pytest.approx(0.3)


def test_styles_weigh_the_same():
    found, average = benchmark_statistics({"anime": [1.0] * 800, "photo": [0.0] * 10})
    assert average == 0.5
    assert found["anime"].deviation == 0


@pytest.mark.parametrize("scores", [[], [1.0] * 799, [1.0] * 799 + [float("nan")]])
def test_an_incomplete_benchmark_is_refused(scores):
    with pytest.raises(ValueError, match=r"equal groups|not finite"):
        group_statistics(scores)
