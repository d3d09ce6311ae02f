"""Model families: one adapter each, over diffusers. An adapter never noises, collates, or knows an objective."""

from sipo.backbones.adapter import Adapter, Media, Sampler
from sipo.backbones.backbone import Backbone
from sipo.backbones.loading import FAMILIES, load_backbone
from sipo.backbones.meta import read_architecture
from sipo.backbones.paths import resolve_path

__all__ = ["FAMILIES", "Adapter", "Backbone", "Media", "Sampler", "load_backbone", "read_architecture", "resolve_path"]
