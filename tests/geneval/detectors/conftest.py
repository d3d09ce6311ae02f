from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import detectors as tiny_detectors


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, Path]:
    """A tiny checkpoint of each kind."""
    makers = (tiny_detectors.owlv2, tiny_detectors.grounding_dino, tiny_detectors.mask2former, tiny_detectors.clip)
    return {make.__name__: make(tmp_path_factory.mktemp(make.__name__)) for make in makers}


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Two of noise, 40 x 28, and one that is taller than wide."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for h, w in ((28, 40), (28, 40), (36, 20))]
