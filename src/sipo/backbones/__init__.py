"""Model families over diffusers: one record each (see `sipo.backbones.family`), and what loads, plans and samples them."""

from sipo.backbones.architecture import Architecture, family_of, read_architecture, resolve_path
from sipo.backbones.backbone import Backbone, load_backbone, quiet_libraries
from sipo.backbones.family import Media, Sampler

__all__ = [
    "Architecture", "Backbone", "Media", "Sampler", "family_of", "load_backbone", "quiet_libraries", "read_architecture",
    "resolve_path",
]  # fmt: skip
