"""Scorers that tests name as `support.scorers:...`: no weights, a known answer."""

from dataclasses import dataclass

from PIL import ImageStat


@dataclass(frozen=True)
class Brightness:
    """Mean brightness, from 0 (black) to 1 (white)."""

    name: str = "brightness"

    def __call__(self, media, prompts, metadata=None) -> list[float]:
        return [ImageStat.Stat(image.convert("L")).mean[0] / 255 for image in media]


@dataclass(frozen=True)
class Constant:
    """1, whatever it sees."""

    name: str = "constant"

    def __call__(self, media, prompts, metadata=None) -> list[float]:
        return [1.0] * len(media)
