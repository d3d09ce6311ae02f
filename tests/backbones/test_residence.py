"""Encoders come and go in the order in which samples need them."""

import pytest

from sipo.backbones import load_backbone, residence
from sipo.config import DataConfig, ModelConfig

CASES = {"wan": (DataConfig("p", resolution=16, num_frames=5), False, True),  # data, memory is scarce, encoders leave
         "flux": (DataConfig("p", resolution=16), True, True),
         "sd": (DataConfig("p"), False, False)}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_encoders_are_on_the_device_only_when_they_run(name, tiny_family, monkeypatch):
    data, scarce, leaves = CASES[name]
    monkeypatch.setattr(residence, "is_scarce", lambda device: scarce)
    backbone, events = load_backbone(ModelConfig(str(tiny_family(name))), size=data.size), []
    pipeline, denoiser, device = backbone.pipeline, backbone.denoiser, backbone.device

    def moves(part):
        to = part.to

        def moved(where):
            events.append((type(part).__name__, "leaves" if where == "cpu" else "comes"))
            assert where in ("cpu", device)
            return to(where)

        monkeypatch.setattr(part, "to", moved)

    texts = [getattr(pipeline, part) for part in backbone.family.text_encoders]
    for part in (*texts, pipeline.vae):
        moves(part)
    denoiser.register_forward_hook(lambda *_: events.append(("denoiser", "runs")))
    decode = pipeline.vae.decode
    made = backbone.sampler(2, 1.0)(["a cat"], [0])
    assert len(made) == 1
    vae, text = type(pipeline.vae).__name__, [type(part).__name__ for part in texts]
    runs = [place for place, event in enumerate(events) if event == ("denoiser", "runs")]
    before = set(events[: runs[0]])
    assert before == ({(each, "leaves") for each in (vae, *text)} if leaves else set())
    between = events[runs[0] : runs[-1] + 1]
    assert set(between) == {("denoiser", "runs")}
    after = events[runs[-1] + 1 :]
    assert after[0] == (vae, "comes")  # to decode
    assert {(each, "comes") for each in text} <= set(after)
    assert pipeline.vae.decode == decode
