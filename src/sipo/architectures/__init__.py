"""The shapes of published checkpoints: their configs in diffusers layout, without weights, so that `sipo plan` of them
needs neither network nor download. The folders are named like the hub ids.

The values are diffusers' published configs, cut down to what decides shapes, schedules and scales; the tests hold them
against the published parameter counts and forward FLOPs.
"""

from importlib import resources
from pathlib import Path

ALIASES = {  # the same files under an older or another name
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "THUDM/CogVideoX-2b": "zai-org/CogVideoX-2b",
    "THUDM/CogVideoX-5b": "zai-org/CogVideoX-5b",
}


def architecture_folder(hub_id: str) -> Path | None:
    """The folder in diffusers layout (configs only) of a checkpoint that is known here, else None."""
    root = Path(str(resources.files("sipo") / "architectures"))
    folder = root / ALIASES.get(hub_id, hub_id)
    is_known = (folder / "model_index.json").is_file() and root in folder.parents
    return folder if is_known else None


def known_architectures() -> list[str]:
    """The hub ids of the checkpoints whose configs are shipped."""
    root = Path(str(resources.files("sipo") / "architectures"))
    return sorted(str(file.parent.relative_to(root)) for file in root.glob("*/*/model_index.json"))
