"""The recipe of the video miniature."""

from dataclasses import dataclass, field

from sipo.mini.recipe import Flaws, Schedule

MIXTURE = {"shape": 0.06, "color": 0.12, "direction": 0.14, "speed": 0.2, "two_object": 0.48}
"""Share of each category among the training clips."""


@dataclass(frozen=True)
class VideoRecipe:
    """Four stages as the image miniature has them (`sipo.mini.recipe.Recipe`), on clips.

    vae: CogVideoX's autoencoder, on clips of which the share `vae_degraded` is degraded; the first `stills` steps see single
    frames, four in the place of a clip.
    text: the text encoder learns which thing stands where in the first, the middle and the last frame.
    clean: denoiser and text encoder, jointly, on `pool_size` flawless clips with right captions; with the weight
    `guide_weight` the encoder goes on to say what stands where, and `lookup_heads` heads of every attention learn to look it
    up. noisy: the same networks on `pool_size` clips with the flaws of `noisy_data` (`wrong_scene`: another clip's caption),
    which the model then shows. The share `prompt_dropout` of the captions is empty: the model is sampled with classifier-free
    guidance.
    The loss is the mean square error of v at uniform timesteps of a schedule with zero terminal SNR, weighted (`error_weight`).
    """

    seed: int = 0
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    vae: Schedule = field(default_factory=lambda: Schedule(5000, 4, learning_rate=2e-3))
    stills: int = 800
    kl: float = 1e-4
    vae_degraded: float = 0.5
    text: Schedule = field(default_factory=lambda: Schedule(1500, 128, weight_decay=0.01))
    clean: Schedule = field(
        default_factory=lambda: Schedule(
            15000, 32, learning_rate=1e-3, warmup_steps=200, decay_share=0.4, weight_decay=0.01, ema=0.998, muon=1e-2
        )
    )
    noisy: Schedule = field(
        default_factory=lambda: Schedule(
            1500, 32, learning_rate=3e-4, decay_share=0.5, weight_decay=0.01, ema=0.998, muon=3e-3
        )
    )
    noisy_data: Flaws = field(default_factory=lambda: Flaws(wrong_attribute=0.3, wrong_scene=0.3, degraded=0.5))
    prompt_dropout: float = 0.1
    guide_weight: float = 0.2
    lookup_heads: int = 2
    pool_size: int = 8_000
