"""The recipe of the flow miniature."""

from dataclasses import dataclass, field

from sipo.mini.recipe import MIXTURE, Flaws, Schedule


@dataclass(frozen=True)
class FlowRecipe:
    """Four stages as the image miniature has them; `vae` and `text` are the same as there (`sipo.mini.recipe.Recipe`).

    clean: denoiser and text encoder, jointly, on `pool_size` flawless pictures with right captions; with the weight
    `guide_weight` the encoder goes on to say what stands where, and `lookup_heads` heads of every attention learn to look it
    up. noisy: the same networks on `pool_size` pictures with the flaws of `noisy_data`, which the model then shows.
    The share `prompt_dropout` of the captions is empty: the model is sampled with classifier-free guidance.
    The loss is the mean square error of the velocity eps - x_0 at x_s = (1 - s) x_0 + s eps, with s = f u / (1 + (f - 1) u),
    u uniform in (0, 1] and f = `shift`.
    """

    seed: int = 0
    mixture: dict[str, float] = field(default_factory=lambda: dict(MIXTURE))
    vae: Schedule = field(default_factory=lambda: Schedule(2400, 32, learning_rate=2e-3))
    kl: float = 1e-4
    vae_degraded: float = 0.5
    text: Schedule = field(default_factory=lambda: Schedule(1500, 128, weight_decay=0.01))
    clean: Schedule = field(
        default_factory=lambda: Schedule(
            7000, 32, learning_rate=1e-3, warmup_steps=200, decay_share=0.4, weight_decay=0.01, ema=0.998, muon=1e-2
        )
    )
    noisy: Schedule = field(
        default_factory=lambda: Schedule(
            1200, 32, learning_rate=3e-4, decay_share=0.5, weight_decay=0.01, ema=0.998, muon=3e-3
        )
    )
    noisy_data: Flaws = field(default_factory=lambda: Flaws(wrong_attribute=0.25, wrong_scene=0.25, degraded=0.5))
    shift: float = 3.0
    prompt_dropout: float = 0.1
    guide_weight: float = 0.2
    lookup_heads: int = 2
    pool_size: int = 32_000
