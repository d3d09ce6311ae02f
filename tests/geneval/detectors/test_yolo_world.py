"""The adapter against a stand-in with ultralytics' interface: the package itself is no dependency."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from sipo.errors import UserError
from sipo.geneval.detectors.yolo_world import YoloWorld


class StandIn:
    def __init__(self, weights):
        self.weights = weights

    def set_classes(self, names):
        self.names = names

    def predict(self, images, conf, iou, device, verbose):
        assert (conf, iou, device, verbose) == (0.1, 0.5, "cpu", False)
        boxes = SimpleNamespace(
            xyxy=torch.tensor([[0, 0, 5, 5], [1.0, 2, 9, 9], [0, 0, 5, 6]]), conf=torch.tensor([0.4, 0.9, 0.5]),
            cls=torch.tensor([1.0, 0, 1]),
        )  # fmt: skip
        return [SimpleNamespace(boxes=boxes) for _ in images]


def test_results_become_detections_by_class(monkeypatch, images):
    module = ModuleType("ultralytics")
    module.YOLOWorld = StandIn
    monkeypatch.setitem(sys.modules, "ultralytics", module)
    found = YoloWorld("w.pt", device="cpu")(images[:2], ["cat", "dog"])
    assert len(found) == 2
    assert [d.box for d in found[0]["cat"]] == [(1, 2, 9, 9)]
    assert [round(d.score, 3) for d in found[0]["dog"]] == [0.5, 0.4]


def test_without_ultralytics_the_message_says_what_to_do(monkeypatch, images):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(UserError, match=r"needs the package ultralytics.*AGPL"):
        YoloWorld()(images, ["cat"])
