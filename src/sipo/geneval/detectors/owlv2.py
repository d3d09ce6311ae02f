"""OWLv2, an open-vocabulary detector, over transformers (google/owlv2-*; google-research/scenic: owl_vit)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer, Owlv2ForObjectDetection, Owlv2ImageProcessorPil

from sipo.geneval.detectors import Found
from sipo.geneval.detectors.boxes import collect, to_pixels
from sipo.geneval.detectors.transformers_detector import TransformersDetector

TEMPLATE = "a photo of a {}"


@dataclass(frozen=True)
class Owlv2(TransformersDetector):
    """OWLv2, open vocabulary: each box belongs to its best class and scores that class's sigmoid.

    Boxes below `floor` are dropped, and of two of one class that overlap by more than `max_overlap` the worse one:
    the model draws several around an object. Raises UserError where `weights` (a folder or hub id) do not load.
    """

    weights: str = "google/owlv2-base-patch16-ensemble"

    kind: ClassVar[str] = "owlv2"
    network: ClassVar[Any] = Owlv2ForObjectDetection
    processor: ClassVar[Any] = Owlv2ImageProcessorPil
    tokenizer: ClassVar[Any] = CLIPTokenizer

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]:
        logits, boxes = self._forward(images, classes)
        best, labels = logits.max(dim=-1)  # (B, boxes); of logits, because the sigmoid of large ones is 1
        found = []
        for image, score, label, box in zip(images, best.sigmoid(), labels, boxes, strict=True):
            side = max(image.size)  # the picture was padded to a square, to the right and below
            inside, keep = to_pixels(box, (side, side), image.size)
            keep &= score > self.floor
            names = [classes[int(index)] for index in label[keep]]
            found.append(collect(inside[keep].tolist(), score[keep].tolist(), names, self.max_overlap))
        return found

    def _forward(self, images: Sequence[Image.Image], classes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits (B, boxes, classes) and boxes (B, boxes, 4) as centre and size in the padded square, on the CPU."""
        model = self._model
        length = model.config.text_config.max_position_embeddings
        texts = [TEMPLATE.format(name) for name in classes] * len(images)
        tokens = self._tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        pixels = self._processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
        outputs = model(
            input_ids=tokens["input_ids"].to(model.device),
            attention_mask=tokens["attention_mask"].to(model.device),
            pixel_values=pixels.to(model.device, model.dtype),
        )
        return outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()
