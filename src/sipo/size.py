"""How large the media are that a model sees: pixels and, for video, frames and their rate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """height, width in pixels. fps is None for images (and num_frames 1); a video of one frame still has a rate.

    Pixel tensors of one medium are (3, H, W) for images and (F, 3, H, W) for videos.
    """

    height: int
    width: int
    num_frames: int = 1
    fps: float | None = None

    @property
    def is_video(self) -> bool:
        return self.fps is not None

    @property
    def pixel_shape(self) -> tuple[int, ...]:
        frame = (3, self.height, self.width)
        return (self.num_frames, *frame) if self.is_video else frame

    @property
    def picture(self) -> "Size":
        """Of a single picture with these sides."""
        return Size(self.height, self.width)

    @property
    def at_once(self) -> int:
        """How many samples are made at once where nothing says it: 8 pictures, 1 video."""
        return 1 if self.is_video else 8

    @property
    def seconds(self) -> float:
        """From the first frame of a video to its last."""
        return (self.num_frames - 1) / self.fps if self.fps else 0.0

    def to_dict(self) -> dict[str, int | float]:
        """height and width; num_frames and fps where it is a video's."""
        sides: dict[str, int | float] = {"height": self.height, "width": self.width}
        return sides | {"num_frames": self.num_frames, "fps": self.fps} if self.fps is not None else sides

    def __str__(self) -> str:
        pixels = f"{self.height} x {self.width}"
        return f"{pixels}, {self.num_frames} frames at {self.fps:g} fps" if self.fps else pixels
