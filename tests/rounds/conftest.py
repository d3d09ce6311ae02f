"""A config of two rounds on a tiny checkpoint: 4 prompts with 2 samples each, a few steps of training."""

import pytest


@pytest.fixture(scope="session")
def prompt_files(tmp_path_factory):
    """Six prompts to sample, two to score on."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "prompts.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    (folder / "held-out.txt").write_text("other 0\nother 1\n")
    return folder / "prompts.txt", folder / "held-out.txt"


@pytest.fixture
def raw_online(tiny_sd, prompt_files, tmp_path) -> dict:
    prompts, held_out = map(str, prompt_files)
    return {
        "run": str(tmp_path / "online"),
        "rounds": {"prompts": prompts, "held_out": held_out, "num_rounds": 2, "num_prompts": 4,
                   "scorer": "support.scorers:Brightness", "epochs": 2.0},
        "model": {"path": str(tiny_sd)},
        "data": {"workers": 0},
        "loss": {"name": "sipo", "beta": 1.0},
        "weight": {"denominator": "old"},
        "policy": {"kind": "lora", "rank": 4, "alpha": 4},
        "train": {"batch_size": 2, "learning_rate": 1e-3, "checkpoint_every": 2, "sample_every": 0, "validate_every": 0},
        "sample": {"num_prompts": 2, "num_inference_steps": 2, "batch_size": 3},
        "log": {"tensorboard": False},
    }  # fmt: skip
