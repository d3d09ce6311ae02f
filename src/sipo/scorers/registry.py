"""The scorers by name. The miniature's own is not among them: it is resolved in `sipo.scorers.named`."""

from collections.abc import Callable
from functools import partial

from sipo.scorers.aesthetic import LaionAesthetic
from sipo.scorers.base import Scorer
from sipo.scorers.clip_score import ClipScore
from sipo.scorers.hps import HPSv2
from sipo.scorers.image_reward import ImageReward
from sipo.scorers.pickscore import PickScore

# Name -> what makes it; all take weights, device, dtype and batch_size.
SCORERS: dict[str, Callable[..., Scorer]] = {
    "pickscore": PickScore,
    "hpsv2": HPSv2,
    "hpsv2.1": partial(HPSv2, version="2.1"),
    "imagereward": ImageReward,
    "aesthetic": LaionAesthetic,
    "clip": ClipScore,
}
