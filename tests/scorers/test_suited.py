"""Scorers that cannot judge what a model makes are refused by the model's configs alone."""

import pytest

from sipo.backbones.architecture import read_architecture
from sipo.config import ModelConfig
from sipo.errors import UsageError
from sipo.scorers.choice import load_scorer
from sipo.scorers.suited import require_suited


@pytest.mark.parametrize(
    ("model", "scorer", "message"),
    [
        ("miniature", "miniature", None),
        ("miniature", "pickscore", None),
        ("miniature", "miniature-video", None),  # takes pictures too
        ("miniature-video", "miniature-video", None),
        ("miniature-video", "pickscore", None),  # its mean over frames
        ("miniature-video", "miniature", "key: miniature takes pictures; a CogVideoXPipeline makes videos"),
        ("miniature", "support.scorers:Change", "key: change judges a sample by the picture .* a StableDiffusionPipeline reads none"),
    ],
)  # fmt: skip
def test_what_a_model_makes_and_what_a_scorer_takes(model, scorer, message):
    architecture, scorers = read_architecture(ModelConfig(model)), [load_scorer("pickscore"), load_scorer(scorer)]
    if message is None:
        require_suited("key", scorers, architecture, architecture.size())
    else:
        with pytest.raises(UsageError, match=message):
            require_suited("key", scorers, architecture, architecture.size())
