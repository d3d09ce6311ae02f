"""Values that are allowed, and hardly ever meant: each gets a sentence before the work starts."""

from sipo.config.sections import Config
from sipo.losses.common import PreferenceObjective, beta_h, resolve_horizon

MOST_BETA_H = 1e5  # twenty times the strongest published setting, Diffusion-DPO's 5000


def notices(config: Config) -> list[str]:
    """A sentence a value, each beginning with its key."""
    loss, data, train, found = config.loss, config.data, config.train, []
    threshold, smoothing = getattr(loss, "prune_threshold", 0), data.label_smoothing
    if threshold > 1:
        found.append(
            f"loss.prune_threshold: {threshold:g} keeps the pairs whose importance weights are above that, and their logarithms "
            "average at most 0: most pairs, or all, are pruned. The paper's value is 0.9"
        )
    if isinstance(loss, PreferenceObjective) and loss.omega == "constant":
        total = beta_h(resolve_horizon(loss, config.num_inference_steps))
        if total > MOST_BETA_H:
            found.append(
                f"loss.beta: {loss.beta:g} times the horizon is {total:g}; beyond {MOST_BETA_H:g} the loss saturates after a few "
                f"steps. `beta` is the paper's: beta_dpo = {loss.beta:g} of other programs is {loss.beta / 1000:g} here"
            )
    if isinstance(smoothing, float) and smoothing >= 0.5:
        what = "learns nothing from labels" if smoothing == 0.5 else "prefers the rejected members"
        found.append(f"data.label_smoothing: {smoothing:g} is the probability that a label is wrong: the policy {what}")
    if data.prompt_dropout == 1:
        found.append("data.prompt_dropout: 1 drops every prompt: only the unconditional prediction is trained")
    if train.warmup_steps >= train.num_steps:
        found.append(
            f"train.warmup_steps: {train.warmup_steps:,} of {train.num_steps:,} steps: the learning rate never gets to its value"
        )
    kept = (train.ema_decay or 0) ** train.num_steps
    if kept > 0.5:
        found.append(
            f"train.ema_decay: {train.ema_decay:g} over {train.num_steps:,} steps leaves {kept:.0%} of the start in the average, "
            f"which is what is written in the end; {1 - 10 / max(train.num_steps, 11):.4g} leaves next to nothing"
        )
    return found
