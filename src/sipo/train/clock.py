"""Seconds of an optimizer step, split by part, without making the device wait."""

import time
from collections import defaultdict
from typing import Any

import torch

PARTS = ("data", "reference", "policy", "other")


class Clock:
    """`mark(part)` charges the time since the last mark to `part`.

    On CUDA the marks are events on the stream, read once a step by `read()`, so a part is the device's time, not
    the time that Python took to launch it.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Begin a step; the time before it is not charged."""
        self.marks: list[tuple[str, Any]] = [("start", self._now())]  # seconds, or events on the stream

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self, part: str) -> None:
        self.marks.append((part, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last read, with their total. Waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float, dict.fromkeys(PARTS, 0.0))
        for (_, before), (part, after) in zip(self.marks, self.marks[1:], strict=False):
            seconds[part] += before.elapsed_time(after) / 1000 if self.cuda else after - before
        self.restart()
        return {"total": sum(seconds.values()), **seconds}
