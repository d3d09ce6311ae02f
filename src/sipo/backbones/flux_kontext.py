"""FLUX.1-Kontext: FLUX.1 that edits. The source's latents, packed 2 x 2 too, follow the noisy ones as tokens of their own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import FluxKontextPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from sipo.backbones.family import Conditioning, Media, draw, meta, scaled, vae_moments
from sipo.backbones.flux import FLUX, Flux, image_ids, pack, unpack
from sipo.size import Size


class FluxKontext(Flux):
    """`FluxKontextPipeline` (see `sipo.backbones.family.SourceAdapter`): as FLUX.1, with `source_latents` (B, C, h, w)."""

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """The velocity, (B, C, h, w): of the first half of the tokens. Positions of the second half begin with 1, not 0."""
        height, width = xt.shape[2:]
        ids = image_ids(height // 2, width // 2, xt.device)
        source_ids = ids + torch.eye(3, device=xt.device)[0]
        tokens = torch.cat([pack(xt), pack(conditioning["source_latents"].to(xt.dtype))], dim=1)
        packed = self.run(denoiser, tokens, torch.cat([ids, source_ids]), t, conditioning, guidance)
        return unpack(packed[:, : len(ids)], height, width)

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """The VAE's mean, scaled: the pipeline takes the posterior's mode."""
        moments = vae_moments(pipeline.vae, pixels)
        return {"source_latents": scaled(draw(moments, torch.zeros_like(moments[:, 0])), self.vae)}

    def source_tokens(self, size: Size) -> int:
        return 0

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        return {"source_latents": meta(batch, *self.latent_shape(size))}

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
        sources: Tensor | None = None,
    ) -> Sequence[Media]:
        """At `size`, which the pipeline would change to its own area and sides. `guidance` as for FLUX.1."""
        return pipeline(
            image=None if sources is None else (sources + 1) / 2, prompt=prompts,
            **self.guidance_keys(len(prompts), guidance), generator=generators, num_inference_steps=steps,
            height=size.height, width=size.width, max_area=size.height * size.width, _auto_resize=False,
            max_sequence_length=self.max_tokens,
        ).images  # fmt: skip


FLUX_KONTEXT = replace(FLUX, pipeline=FluxKontextPipeline, adapter=FluxKontext)
"""FLUX.1-Kontext: edits a source by a prompt; a flow-matching transformer, CLIP and T5, distilled guidance."""
