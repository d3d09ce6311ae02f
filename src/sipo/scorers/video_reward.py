"""VideoReward (KwaiVGI/VideoAlign) for users who have its repository and weights: a worker in its own environment."""

import shlex
from pathlib import Path

from sipo.errors import UserError
from sipo.scorers.worker import WorkerScorer


def video_reward(
    repo: Path, checkpoint: Path, python: str = "uv run --script", device: str = "cuda:0", batch_size: int = 256
) -> WorkerScorer:
    """The scorer "videoreward": the normalised sum of visual quality, motion quality and text alignment.

    repo: a clone of KwaiVGI/VideoAlign. checkpoint: the folder with its model_config.json. python: what runs the worker
    script; uv by default, which makes the environment that the script pins. Raises UserError for a wrong folder.
    """
    for folder, file in ((Path(repo), "inference.py"), (Path(checkpoint), "model_config.json")):
        if not (folder / file).is_file():
            raise UserError(f"videoreward: {folder} holds no {file}")
    words = ["--repo", str(Path(repo).resolve()), "--checkpoint", str(Path(checkpoint).resolve()), "--device", device]
    return WorkerScorer("videoreward", f"{python} @videoreward {shlex.join(words)}", batch_size)
