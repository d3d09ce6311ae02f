"""Steps that teach nothing, seen from what they leave: all pairs pruned, no gradient, or a loss that has saturated."""

import numpy as np

# sigmoid(-logit), the slope of the loss: nearer to 0 or 1 than this, the pair says yes or no, not how much
DECIDED = 1e-3

MESSAGES = {
    "pruned": "every pair of the last {window} steps was pruned: nothing is trained. Lower loss.prune_threshold (0 prunes nothing)",
    "still": "the gradient of the last {window} steps was exactly 0: no weight has changed. Is there a difference between the members "
    "of the pairs, and a learning signal in the objective's settings?",
    "saturated": "beta has saturated every pair of the last {window} steps: the slope of the loss is 0 or 1, whatever the size of the "
    "margin. Lower loss.beta or train.learning_rate",
}


class Idle:
    """Warns once where `window` steps in a row taught nothing, and again only after a step that did."""

    def __init__(self, window: int = 20):
        self.window, self.kind, self.count = window, "", 0

    def update(self, pairs: dict[str, np.ndarray], grad_norm: float) -> str | None:
        """A warning or None. `pairs`: the (N,) columns of the step's global batch."""
        kind = _kind(pairs, grad_norm)
        self.count = self.count + 1 if kind == self.kind else 1
        self.kind = kind
        return MESSAGES[kind].format(window=self.window) if kind and self.count == self.window else None


def _kind(pairs: dict[str, np.ndarray], grad_norm: float) -> str:
    slope = pairs.get("sigmoid_neg_logit")
    if "pruned" in pairs and (pairs["pruned"] == 1).all():
        return "pruned"
    if grad_norm == 0:
        return "still"
    if slope is not None and (np.minimum(slope, 1 - slope) < DECIDED).all():
        return "saturated"
    return ""
