"""The metrics file of a resumed run, and the warning."""

import json

import numpy as np
import pytest

from sipo.train.record import FallingRewards, MetricsFile


def test_a_resumed_file_has_neither_gaps_nor_doubles_nor_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (0, 1, 2, 3)) + '{"step": 4, "lo')
    file = MetricsFile(path, step=2)
    file.write({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    MetricsFile(path, step=0)
    assert path.read_text() == ""


def drift(chosen: float, rejected: float, steps: int = 200) -> list[str]:
    rng, falling = np.random.default_rng(0), FallingRewards()
    noise = rng.normal(0, 0.01, (steps, 2))
    lines = [
        {"reward_chosen": chosen * i + noise[i, 0], "reward_rejected": rejected * i + noise[i, 1]} for i in range(steps)
    ]
    return [warning for i, line in enumerate(lines) if (warning := falling.update(i + 1, line))]


def test_rewards_falling_together_are_said_in_words_and_not_every_step():
    warnings = drift(-0.01, -0.02)
    assert 1 <= len(warnings) <= 2
    assert "fall together" in warnings[0]


@pytest.mark.parametrize(("chosen", "rejected"), [(0.01, -0.02), (0.0, 0.0), (0.01, 0.02), (-0.01, 0.0)])
def test_no_warning_unless_both_fall(chosen, rejected):
    assert drift(chosen, rejected) == []
