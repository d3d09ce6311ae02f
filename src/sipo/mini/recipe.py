"""The recipe of the shipped miniature: `sipo mini build` runs it, the record beside the weights repeats it."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class VAERecipe:
    """Autoencoder: L1 + MSE on pixels in [-1, 1] plus `kl` x KL to the unit Gaussian (mean over latent dimensions)."""

    num_steps: int = 1600
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    decay_share: float = 0.4
    kl: float = 1e-4


@dataclass(frozen=True)
class UNetRecipe:
    """Denoiser and text encoder, jointly from nothing.

    Weighted by min(SNR, snr_gamma) / SNR (Hang et al. 2023, arXiv 2303.09556); the learning rate is constant after
    warm-up and falls linearly to zero over the last `decay_share` of the steps; `ema` is the decay per step.
    """

    num_steps: int = 2600
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.35
    weight_decay: float = 1e-2
    snr_gamma: float = 5.0
    prompt_dropout: float = 0.1
    ema: float = 0.998
    pool_size: int = 32_000


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    vae: VAERecipe = field(default_factory=VAERecipe)
    unet: UNetRecipe = field(default_factory=UNetRecipe)

    def to_dict(self) -> dict:
        return asdict(self)


MIXTURE = {
    "single_object": 0.04,
    "two_object": 0.14,
    "counting": 0.17,
    "colors": 0.10,
    "position": 0.22,
    "color_attr": 0.33,
}
"""Share of each category among the training pictures: composition is hard, so it is shown more."""
