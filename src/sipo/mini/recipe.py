"""The recipe of the image miniature: `sipo mini build` runs it, the record beside the weights repeats it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

MIXTURE = {
    "single_object": 0.05,
    "two_object": 0.12,
    "counting": 0.17,
    "colors": 0.07,
    "position": 0.17,
    "colored_position": 0.16,
    "color_attr": 0.26,
}
"""Share of each category among the training pictures: composition is hard, so it is shown more.

GenEval's position prompts name no colours. Until shapes can be told apart a caption then says little about a noisy
picture, and a denoiser is slow to learn what relations mean. Captions that name both colours teach it sooner.
"""


@dataclass(frozen=True)
class Schedule:
    """One stage of training with AdamW.

    The learning rate is constant after warm-up and falls linearly to zero over the last `decay_share` of the steps;
    `ema` is the decay per step of the averaged weights (0: the last weights). `muon`: the learning rate of Muon (Jordan 2024),
    which then trains the matrices inside a transformer's blocks (0: AdamW trains all).
    """

    num_steps: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    decay_share: float = 0.4
    weight_decay: float = 0.0
    ema: float = 0.0
    muon: float = 0.0


@dataclass(frozen=True)
class Flaws:
    """Shares of the pretraining data that are flawed, as captions and pictures from the web are.

    wrong_attribute: captions with one false shape, colour, count or relation; wrong_scene: captions of another scene
    of the same category; degraded: pictures with blotches, blur or noise, independent of the caption.
    """

    wrong_attribute: float = 0.0
    wrong_scene: float = 0.0
    degraded: float = 0.0


class OfPictures(Protocol):
    """What the stages that all miniatures of the still world share read of a recipe."""

    @property
    def seed(self) -> int: ...
    @property
    def mixture(self) -> Mapping[str, float]: ...
    @property
    def vae(self) -> Schedule: ...
    @property
    def kl(self) -> float: ...
    @property
    def vae_degraded(self) -> float: ...
    @property
    def text(self) -> Schedule: ...
    @property
    def pool_size(self) -> int: ...


@dataclass(frozen=True)
class Recipe:
    """Four stages, each from the end of the one before, on scenes whose categories have the shares of `mixture`.

    vae: autoencoder, L1 + MSE on pixels in [-1, 1] plus `kl` x KL to the unit Gaussian (mean over latent dimensions),
    on pictures of which the share `vae_degraded` is degraded.
    text: the text encoder learns what stands where (`train_text`), on right captions.
    clean: denoiser and text encoder, jointly, on `pool_size` flawless pictures with right captions; with the weight
    `guide_weight` the encoder goes on to say what stands where, and `lookup_heads` heads of every cross-attention learn
    to look it up (`lookup`).
    noisy: the same networks on `pool_size` pictures with the flaws of `noisy_data`, which the model then shows.
    The denoiser's loss has the weight min(SNR^-snr_power, snr_gamma / SNR), see `train_unet.snr_weight`, and the timesteps
    1000 (1 - u^t_power), u uniform in (0, 1]: power 1 is uniform, power 2 draws 22% of them above 950 instead of 5%, where
    the noise leaves open what stands where and the caption alone can tell.
    """

    seed: int = 0
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    vae: Schedule = field(default_factory=lambda: Schedule(2400, 32, learning_rate=2e-3))
    kl: float = 1e-4
    vae_degraded: float = 0.5
    text: Schedule = field(default_factory=lambda: Schedule(1500, 128, weight_decay=0.01))
    clean: Schedule = field(
        default_factory=lambda: Schedule(
            6000, 32, learning_rate=8e-4, warmup_steps=300, decay_share=0.35, weight_decay=0.01, ema=0.998
        )
    )
    noisy: Schedule = field(
        default_factory=lambda: Schedule(1200, 32, learning_rate=3e-4, decay_share=0.5, weight_decay=0.01, ema=0.998)
    )
    noisy_data: Flaws = field(default_factory=lambda: Flaws(wrong_attribute=0.25, wrong_scene=0.25, degraded=0.5))
    snr_gamma: float = 5.0
    snr_power: float = 0.5
    t_power: float = 2.0
    prompt_dropout: float = 0.1
    guide_weight: float = 0.2
    lookup_heads: int = 2
    pool_size: int = 32_000
