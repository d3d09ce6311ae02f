"""Reward models, one a file: pictures (or videos' frames) and prompts in, one number each out."""

SCORERS = {
    "pickscore": "sipo.scorers.pickscore:PickScore",
    "hpsv2": "sipo.scorers.hps:HPSv2",
    "hpsv2.1": "sipo.scorers.hps:hpsv2_1",
    "imagereward": "sipo.scorers.image_reward:ImageReward",
    "aesthetic": "sipo.scorers.aesthetic:LaionAesthetic",
    "clip": "sipo.scorers.clip_score:ClipScore",
}
"""What makes each: it takes weights, device, dtype and batch_size. See `sipo.registry`."""
