"""What Wan's models that read a source share, however they read it."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor

from sipo.backbones.family import Conditioning, Media
from sipo.backbones.pictures import as_pictures
from sipo.backbones.wan import MAX_TOKENS, Wan
from sipo.size import Size


class WanSource(Wan):
    """`WanImageToVideoPipeline`: as Wan, of videos that begin with a source."""

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """As Wan's. By the text-to-video pipeline's method, because the other's requires ftfy, which this one does without."""
        hidden = WanPipeline._get_t5_prompt_embeds(
            pipeline, prompts, max_sequence_length=MAX_TOKENS, device=pipeline.transformer.device
        )
        return {"encoder_hidden_states": hidden}

    def source_tokens(self, size: Size) -> int:
        return 0

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
        """One after the other: the pipeline takes one source a call."""
        assert sources is not None
        (text,), (empty,) = (self.encode_prompts(pipeline, texts).values() for texts in (prompts, [""]))
        return [
            pipeline(
                image=picture, prompt_embeds=hidden[None], negative_prompt_embeds=empty,
                generator=[generator], num_inference_steps=steps, guidance_scale=guidance, height=size.height,
                width=size.width, num_frames=size.num_frames, output_type="pil",
            ).frames[0]
            for picture, hidden, generator in zip(as_pictures(sources), text, generators, strict=True)
        ]  # fmt: skip
