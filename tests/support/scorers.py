"""Scorers that tests name as `support.scorers:...`: no weights, a known answer."""

from dataclasses import dataclass

from PIL import ImageChops, ImageStat


@dataclass(frozen=True)
class Brightness:
    """Mean brightness, from 0 (black) to 1 (white)."""

    name: str = "brightness"

    def __call__(self, media, prompts, metadata=None) -> list[float]:
        return [ImageStat.Stat(image.convert("L")).mean[0] / 255 for image in media]


@dataclass(frozen=True)
class Change:
    """Mean distance from the source, resized to the sample, from 0 (the same) to 1."""

    name: str = "change"
    reads_sources: bool = True

    def __call__(self, media, prompts, metadata=None, *, sources) -> list[float]:
        given = zip(media, sources, strict=True)
        distances = [ImageChops.difference(medium, source.resize(medium.size)) for medium, source in given]
        return [sum(ImageStat.Stat(picture).mean) / 3 / 255 for picture in distances]


@dataclass(frozen=True)
class Constant:
    """1, whatever it sees."""

    name: str = "constant"

    def __call__(self, media, prompts, metadata=None) -> list[float]:
        return [1.0] * len(media)
