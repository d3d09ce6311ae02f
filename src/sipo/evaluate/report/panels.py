"""The curves of a report and the purpose of each: the paper's figures, and those that diagnose a run."""

from collections.abc import Mapping
from dataclasses import replace

from sipo.evaluate.report.plots import CHOSEN, NEUTRAL, QUIET, REJECTED, Panel, Series

SHARE, FROM_ZERO = (0.0, 1.03), (0.0, None)

REWARDS = Series("reward_chosen", "chosen", CHOSEN), Series("reward_rejected", "rejected", REJECTED)
WEIGHTS = Series("w_chosen", "chosen", CHOSEN), Series("w_rejected", "rejected", REJECTED)
ACCURACY = Series("accuracy", "right", CHOSEN), Series("tie", "tied", QUIET)
SELECTION = (
    Series("pruned", "pruned", REJECTED),
    Series("clipped", "at the clip", QUIET),
    Series("capped", "rejected, beyond the cap", NEUTRAL),
    Series("gain_capped", "chosen, beyond the gain cap", CHOSEN),
)
ERRORS = (
    Series("mse_policy_chosen", "policy, chosen", CHOSEN),
    Series("mse_reference_chosen", "reference, chosen", CHOSEN, ":"),
    Series("mse_policy_rejected", "policy, rejected", REJECTED),
    Series("mse_reference_rejected", "reference, rejected", REJECTED, ":"),
)

TRAINING = (
    Panel("loss", "Loss", "mean over pairs", (Series("loss"),), "A preference loss starts at log 2 = 0.693."),
    Panel("rewards", "Implicit rewards", "βH × log-ratio", REWARDS,
          "Chosen should rise, rejected fall. Both falling together is how a collapse begins.", (0.0,)),
    Panel("reward-gap", "Reward gap", "chosen − rejected", (Series("reward_gap"),),
          "Diffusion-DPO's logit; above zero, the policy prefers the chosen picture.", (0.0,)),
    Panel("accuracy", "Implicit accuracy", "share of pairs", ACCURACY,
          "Pairs in which the policy moved towards the chosen picture.", (0.5,), limits=SHARE),
    Panel("weight", "Importance weight w", "mean over pairs", WEIGHTS,
          "Probability of the data's own denoising step under the policy, relative to the exact posterior."),
    Panel("selection", "Pruned and clipped", "share of pairs", SELECTION,
          "Pairs below the pruning threshold are ignored; at the clip, the weight carries no gradient; beyond a "
          "cap, a picture is pushed no further.",
          limits=FROM_ZERO),
    Panel("effective-sample-size", "Effective sample size", "share of the batch",
          (Series("effective_sample_size"),), "1: all weights equal. Near 0: a few outweigh the rest.", limits=SHARE),
    Panel("saturation", "σ(−logit)", "mean over pairs", (Series("sigmoid_neg_logit"),),
          "The size of a pair's gradient. Near 0 the pairs are fitted and training stops learning.", (0.5,)),
    Panel("error-chosen", "Error on chosen", "mean squared error",
          (replace(ERRORS[0], label="policy"), replace(ERRORS[1], label="reference")),
          "Below the reference: the policy came closer to the chosen pictures."),
    Panel("error-rejected", "Error on rejected", "mean squared error",
          (replace(ERRORS[2], label="policy"), replace(ERRORS[3], label="reference")),
          "Above the reference: the policy moved away from the rejected pictures."),
    Panel("gradient-norm", "Gradient norm", "before clipping", (Series("grad_norm"),), "Steady, without spikes."),
    Panel("learning-rate", "Learning rate", "", (Series("learning_rate"),)),
)  # fmt: skip

BY_TIMESTEP = (
    Panel("weight-by-t", "Importance weight w(t)", "mean over pairs", WEIGHTS,
          "The paper's Figure 4: low weights at small t, where the policy cannot make the data's steps."),
    Panel("rewards-by-t", "Implicit rewards", "βH × log-ratio", REWARDS, "Where the policy learned.", (0.0,)),
    Panel("reward-gap-by-t", "Reward gap", "chosen − rejected", (Series("reward_gap"),), "Above zero: right.", (0.0,)),
    Panel("accuracy-by-t", "Implicit accuracy", "share of pairs", (Series("accuracy"),),
          "Pairs in which the policy moved towards the chosen picture.", (0.5,), limits=SHARE),
    Panel("error-by-t", "Prediction error", "mean squared error", ERRORS, "Policy solid, reference dotted."),
    Panel("selection-by-t", "Pruned and clipped", "share of pairs", SELECTION,
          "Where no pair, or no weight, is learned from.", limits=FROM_ZERO),
    Panel("loss-by-t", "Loss", "mean over pairs", (Series("loss"),)),
)  # fmt: skip

VALIDATION = (
    Panel("validation-loss", "Held-out loss", "mean over pairs", (Series("loss"),)),
    Panel("validation-accuracy", "Held-out implicit accuracy", "share of pairs", ACCURACY,
          levels=(0.5,), limits=SHARE),
    Panel("validation-gap", "Held-out reward gap", "chosen − rejected", (Series("reward_gap"),), levels=(0.0,)),
)  # fmt: skip

HELD_OUT = (
    Panel("held-out-score", "Held-out score", "mean over samples", (Series("score"),),
          "Samples of held-out prompts, the same seeds every time. Dashed: the best, whose weights the run keeps."),
)  # fmt: skip


def with_loss_settings(panel: Panel, loss: Mapping) -> Panel:
    """The panel with the objective's own limits drawn in: the pruning threshold and the clip range around w = 1."""
    threshold, clip = loss.get("prune_threshold"), loss.get("clip_range")
    if panel.name not in ("weight", "weight-by-t") or not (threshold or clip):
        return panel
    marks = [f"Dashed: the pruning threshold, {threshold}."] if threshold else []
    marks += [f"Shaded: the clip range, {1 - clip:g} to {1 + clip:g}."] if clip else []
    return replace(
        panel,
        note=" ".join([panel.note, *marks]),
        levels=(threshold,) if threshold else (),
        band=(1 - clip, 1 + clip) if clip else None,
    )
