"""Encoded pictures, tables and a stand-in for a backbone, for tests that need data on disk."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor


def picture(seed: int, size: tuple[int, int] = (20, 12), format: str = "PNG", **options) -> bytes:
    """An encoded RGB picture of noise; another seed, another picture. size: (width, height)."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), format, **options)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def raw_png(width: int, height: int, bit_depth: int, color_type: int, scanlines: bytes, *chunks: bytes) -> bytes:
    """A PNG put together by hand from the specification, so that Pillow reads what it did not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, 0))
    extra = b"".join(chunk(body[:4], body[4:]) for body in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")


def pick_a_pic(count: int, prompts: int | None = None) -> dict[str, list]:
    """Columns of `count` sound rows in Pick-a-Pic's schema; jpg_0 is chosen in the even ones."""
    return {
        "jpg_0": [picture(2 * n) for n in range(count)],
        "jpg_1": [picture(2 * n + 1) for n in range(count)],
        "label_0": [float(n % 2 == 0) for n in range(count)],
        "caption": [f"prompt {n % (prompts or count)}" for n in range(count)],
    }


def write_parquet(path: Path, columns: dict[str, list], **options) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


class FakeEncoder:
    """Stands in for a backbone: moments that tell pixels apart, embeddings that tell prompts apart, and counts."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.prompts: list[str] = []
        self.pictures = 0
        self.loads = 0

    @contextlib.contextmanager
    def encoders(self) -> Iterator[None]:
        self.loads += 1
        yield

    def encode_prompts(self, prompts: list[str]) -> dict[str, Tensor]:
        self.prompts += prompts
        codes = [[float(b) for b in prompt.encode().ljust(24, b"\0")[:24]] for prompt in prompts]
        return {"prompt_embeds": torch.tensor(codes, dtype=torch.bfloat16), "pooled": torch.tensor(codes).sum(1)}

    def encode_media(self, pixels: Tensor) -> Tensor:
        self.pictures += len(pixels)
        frames = pixels.flatten(0, -4)
        mean = torch.nn.functional.avg_pool2d(frames, 4).unflatten(
            0, pixels.shape[:-3]
        )  # (B, 3, h, w) or (B, F, 3, h, w)
        return torch.stack([mean, mean.square() - 3.0], dim=1)

    def fingerprint(self) -> dict[str, str]:
        return {"name": self.name}

    def nonfinite_weight(self) -> str | None:
        return None
