"""Grounding DINO, an open-vocabulary detector, over transformers (IDEA-Research/grounding-dino-*)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

from sipo.errors import UserError
from sipo.geneval.detectors import Found
from sipo.geneval.detectors.boxes import collect, to_pixels
from sipo.geneval.detectors.transformers_detector import TransformersDetector


@dataclass(frozen=True)
class GroundingDino(TransformersDetector):
    """Grounding DINO, open vocabulary: a box's score for a class is the mean over its tokens in one caption.

    The caption lists all classes, "cat. traffic light."; that is the authors' way to score categories
    (IDEA-Research/GroundingDINO: demo/test_ap_on_coco.py). A box belongs to its best class; `floor` and `max_overlap` as
    in `Owlv2`. Raises UserError where `weights` (a folder or hub id) do not load, or for more classes than a caption
    holds (256 tokens).
    """

    weights: str = "IDEA-Research/grounding-dino-base"

    kind: ClassVar[str] = "grounding-dino"
    network: ClassVar[Any] = GroundingDinoForObjectDetection
    processor: ClassVar[Any] = GroundingDinoImageProcessorPil
    tokenizer: ClassVar[Any] = BertTokenizer

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]:
        caption, spans = caption_of(classes, self._tokenizer)
        if len(caption) > self._model.config.max_text_len:
            limit = self._model.config.max_text_len
            raise UserError(f"{len(classes)} class names make {len(caption)} tokens, Grounding DINO takes {limit}.")
        logits, boxes = self._forward(images, caption)
        members = torch.zeros(logits.shape[-1], len(classes))  # (tokens, classes): each column sums to 1
        for index, (start, stop) in enumerate(spans):
            members[start:stop, index] = 1 / (stop - start)
        best, labels = (logits.sigmoid() @ members).max(dim=-1)  # (B, boxes)
        found = []
        for image, score, label, box in zip(images, best, labels, boxes, strict=True):
            inside, keep = to_pixels(box, image.size, image.size)
            keep &= score > self.floor
            names = [classes[int(index)] for index in label[keep]]
            found.append(collect(inside[keep].tolist(), score[keep].tolist(), names, self.max_overlap))
        return found

    def _forward(self, images: Sequence[Image.Image], caption: list[int]) -> tuple[Tensor, Tensor]:
        """Logits (B, boxes, 256 tokens) and boxes (B, boxes, 4) as centre and size in the picture, on the CPU."""
        model = self._model
        pixels = self._processor([image.convert("RGB") for image in images], return_tensors="pt")
        tokens = torch.tensor([caption] * len(images), device=model.device)
        outputs = model(
            pixel_values=pixels["pixel_values"].to(model.device, model.dtype),
            pixel_mask=pixels["pixel_mask"].to(model.device),
            input_ids=tokens,
            token_type_ids=torch.zeros_like(tokens),
            attention_mask=torch.ones_like(tokens),
        )
        return outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()


def caption_of(classes: Sequence[str], tokenizer: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """The token ids of "[CLS] a. b. [SEP]", and of each class the (start, stop) of its own tokens."""
    stop_id = tokenizer.convert_tokens_to_ids(".")
    caption, spans = [tokenizer.cls_token_id], []
    for name in classes:
        ids = tokenizer(name, add_special_tokens=False)["input_ids"]
        spans.append((len(caption), len(caption) + len(ids)))
        caption += [*ids, stop_id]
    return [*caption, tokenizer.sep_token_id], spans
