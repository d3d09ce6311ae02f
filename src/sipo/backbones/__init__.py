"""Model families: one adapter each, over diffusers. An adapter never noises, collates, or knows an objective."""

from sipo.backbones.base import Backbone, Sampler
from sipo.backbones.loading import FAMILIES, load_backbone, resolve_path

__all__ = ["FAMILIES", "Backbone", "Sampler", "load_backbone", "resolve_path"]
