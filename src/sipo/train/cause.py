"""Why a loss is not finite, where it is no fault of the training: broken weights, a broken row of the cache, overflowing encoders."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sipo.backbones import Backbone
from sipo.data.batches import Item, schedule_slots
from sipo.data.dataset import CachedPairs, PairDataset


@dataclass(frozen=True)
class Causes:
    """What a step reads, to be looked through once its losses are not finite. start: the step after which the run goes on."""

    backbone: Backbone
    pairs: PairDataset
    seed: int
    global_batch: int
    start: int

    def __call__(self, step: int, slots: list[int]) -> str | None:
        """What holds NaN or infinity, and what to do; None where all is finite. `slots`: of the pairs with such losses."""
        # After the first step the weights that train are the training's own: too high a learning rate may have broken them.
        if broken := self.backbone.nonfinite_weight(trained=step == self.start + 1):
            return (
                f"the model's weights: {broken}. Neither pairs nor train.learning_rate are to blame: replace the file"
            )
        places = schedule_slots(len(self.pairs), self.seed, step - 1, self.global_batch)
        for item in (self.pairs[places[slot]] for slot in slots):
            for name, tensor in self._tensors(item):
                if not tensor.isfinite().all():
                    return self._of_data(item, name)
        return None

    @torch.no_grad()
    def _tensors(self, item: Item) -> Iterator[tuple[str, Tensor]]:
        """What the networks read of a pair, by its name; of pixels and prompts what the encoders make of them."""
        conditioning = item.conditioning or self.backbone.encode_prompts([item.prompt])
        yield from ((f"{name} of the prompt {item.prompt[:60]!r}", value) for name, value in conditioning.items())
        if item.source is not None:
            yield from self.backbone.encode_source(item.source[None], [item.prompt]).items()
        for name, (media, _) in zip(("chosen", "rejected"), item.members, strict=False):
            yield name, media if item.conditioning or item.times else self.backbone.encode_media(media[None])

    def _of_data(self, item: Item, name: str) -> str:
        if isinstance(self.pairs, CachedPairs):
            cache = self.pairs.cache.path
            return (
                f"what the cache {cache} holds of {item.id}: {name}. Delete the cache; the same command encodes again"
            )
        if item.times and name in ("chosen", "rejected"):
            return f"the trajectory of {item.id}: {name}. Sample it again, or leave the pair out"
        return f"what the model's encoders make of {item.id}: {name}. Try another precision (train.mixed_precision, model.dtype)"
