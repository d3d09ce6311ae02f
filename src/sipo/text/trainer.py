"""`SIPOTrainer`: TRL's `DPOTrainer` with SIPO's loss. Needs `pip install sipo[trl]`.

`DPOTrainer` runs policy and reference and logs its metrics; forward hooks read the tokens' log-probabilities off both runs,
and `sipo_text_loss` of them takes the place of TRL's loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sipo.text.loss import Unit, check_values, sipo_text_loss

try:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
except ImportError as error:
    raise ImportError(f"sipo.text.trainer needs TRL ({error}): pip install 'sipo[trl]'") from error

# Fields of DPOConfig that choose or shape another loss, or keep sums of the reference's log-probabilities alone.
FIXED: dict[str, Any] = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "ld_alpha": None,
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "label_smoothing": 0.0,
    "use_weighting": False,
    "discopop_tau": 0.05,
    "precompute_ref_log_probs": False,
}


@dataclass
class SIPOConfig(DPOConfig):
    """TRL's `DPOConfig` and what `sipo_text_loss` has beside `beta`.

    Raises ValueError for values out of range, and for fields of DPOConfig that SIPO's loss would not heed.
    """

    clip_range: float = field(default=0.1, metadata={"help": "e: weights are clipped to [1 - e, 1 + e]."})
    prune_threshold: float = field(default=0.9, metadata={"help": "tau: what weighs less is left out; 0: nothing."})
    unit: Unit = field(default="sequence", metadata={"help": "What has a weight."})
    detach_weights: bool = field(default=False, metadata={"help": "Stop the gradient through the weights."})

    def __post_init__(self):
        super().__post_init__()
        check_values(self.beta, self.clip_range, self.prune_threshold, self.unit)
        changed = [
            f"{name} is {getattr(self, name)!r}, not {kept!r}"
            for name, kept in FIXED.items()
            if getattr(self, name) != kept
        ]
        if changed:
            raise ValueError(f"SIPO's loss has no use for these; leave them out: {'; '.join(changed)}")


class SIPOTrainer(DPOTrainer):
    """TRL's `DPOTrainer` trained by `sipo_text_loss`; the same arguments, `args` a `SIPOConfig`.

    Logged beside TRL's metrics: `sipo/weight`, `sipo/pruned` and `sipo/clipped`, means over pairs. `rewards/*` are TRL's, of
    whole responses and without weights. Raises TypeError for another class of config, RuntimeError if a version of TRL
    runs policy and reference in another way.
    """

    _tag_names: ClassVar = ["trl", "dpo", "sipo"]  # of model cards
    _name: ClassVar = "SIPO"

    def __init__(self, model: Any, ref_model: Any = None, args: SIPOConfig | None = None, **others: Any):
        if not isinstance(args, SIPOConfig):
            raise TypeError(f"args is a {type(args).__name__}; SIPOTrainer needs a sipo.text.trainer.SIPOConfig")
        super().__init__(model, ref_model, args, **others)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean of `sipo_text_loss` over the batch's pairs, and the auxiliary loss of a mixture of experts as in TRL."""
        with self._runs() as runs:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if len(runs) != 2:
            raise RuntimeError(f"expected a run of the policy and one of the reference from TRL, found {len(runs)}")
        policy, reference = runs
        mask = inputs["completion_mask"][:, 1:]  # of the token that a position predicts
        logps, ref_logps = (run.log_probs[:, -mask.size(1) :] for run in (policy, reference))
        args: SIPOConfig = self.args  # pyright: ignore[reportAssignmentType]
        losses, metrics = sipo_text_loss(
            logps, ref_logps, mask, args.beta, args.clip_range, args.prune_threshold, args.unit, args.detach_weights
        )
        loss = losses.mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * policy.aux_loss
        logged = self._metrics["train" if model.training else "eval"]
        for name in ("weight", "pruned", "clipped"):
            gathered: Any = self.accelerator.gather(metrics[name])
            logged[f"sipo/{name}"].append(gathered.mean().item())
        return (loss, result[1]) if return_outputs else loss

    @contextmanager
    def _runs(self) -> Iterator[list[Any]]:
        """What the models return with per-token log-probabilities in this context: the policy first, then the reference."""
        found: list[Any] = []

        def keep(module: Any, args: Any, output: Any) -> None:
            if getattr(output, "log_probs", None) is not None:
                found.append(output)

        models: list[Any] = [self.model, self.ref_model]  # with LoRA the first runs twice, and the second is None
        hooks = [model.register_forward_hook(keep) for model in models if model is not None]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()
