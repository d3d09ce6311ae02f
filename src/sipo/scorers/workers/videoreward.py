# /// script
# requires-python = ">=3.10,<3.11"
# dependencies = [
#   "torch==2.3.1", "torchvision==0.18.1", "transformers==4.45.2", "tokenizers==0.20.0", "accelerate==0.34.0",
#   "peft==0.10.0", "trl==0.8.6", "datasets==2.19.2", "deepspeed==0.14.0", "liger-kernel==0.3.0", "numpy==1.26.4",
#   "pandas==2.2.2", "pillow==10.2.0", "decord==0.6.0", "safetensors==0.4.5", "wandb==0.16.6",
#   "opencv-python-headless", "diffusers", "packaging==24.0", "setuptools==68.2.2", "ninja==1.11.1.1",
#   "flash-attn==2.5.8",
# ]
# [tool.uv]
# no-build-isolation-package = ["flash-attn"]
# ///
"""VideoReward by its authors' own code (KwaiVGI/VideoAlign), to compare with the scorer of that name; the pins are of its
environment.yaml.

    git clone https://github.com/KwaiVGI/VideoAlign        # and its checkpoint, as its README says
    sipo score FOLDER --worker 'official=uv run --script @videoreward --repo VideoAlign --checkpoint CHECKPOINT'

score is "Overall", the sum of visual quality (VQ), motion quality (MQ) and text alignment (TA), each normalised by the
mean and deviation that come with the checkpoint; the three are kept as details. Needs a CUDA GPU.
"""

import argparse
import json
import os
import sys

DIMENSIONS = ("VQ", "MQ", "TA")


def main() -> None:
    parser = argparse.ArgumentParser(description="Score videos with VideoReward.")
    parser.add_argument("--repo", required=True, help="a clone of KwaiVGI/VideoAlign")
    parser.add_argument("--checkpoint", required=True, help="the folder with model_config.json")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--requests", required=True)
    parser.add_argument("--scores", required=True)
    arguments = parser.parse_args()
    for name in ("repo", "checkpoint"):
        setattr(arguments, name, os.path.abspath(getattr(arguments, name)))

    sys.path.insert(0, arguments.repo)  # its modules are top-level files
    import torch
    from inference import VideoVLMRewardInference  # pyright: ignore[reportMissingImports]  # of the clone

    model = VideoVLMRewardInference(arguments.checkpoint, device=arguments.device, dtype=torch.bfloat16)
    with (
        open(arguments.requests, encoding="utf-8") as requests,
        open(arguments.scores, "w", encoding="utf-8") as scores,
    ):
        for line in requests:
            scores.write(json.dumps(answer(model, json.loads(line))) + "\n")
            scores.flush()


def answer(model, request: dict) -> dict:
    """One video at a time, so that a broken one is named and spoils no other."""
    import torch

    try:
        with torch.no_grad():
            reward = model.reward([request["file"]], [request["prompt"]], use_norm=True)[0]
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a decoder that is fed garbage may raise anything
        return {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
    return {"id": request["id"], "score": reward["Overall"], **{name: reward[name] for name in DIMENSIONS}}


if __name__ == "__main__":
    main()
