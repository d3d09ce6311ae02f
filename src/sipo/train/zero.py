"""DeepSpeed's ZeRO: each process keeps its share of the optimizer (zero1), and of the gradients too (zero2).

The network itself stays whole in every process, so all but the update is as without sharding. DeepSpeed is used for the
update alone: its engine is given the trained weights, not the network, and never runs a forward. So it meets neither
frozen weights in half precision, which it refuses, nor autocast, which it would switch off.
"""

import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sipo.config import Config
from sipo.errors import UserError
from sipo.train.checkpoint import Checkpoint, save_checkpoint

STAGES = {"zero1": 1, "zero2": 2}  # by train.sharding
MOMENTS = ("exp_avg", "exp_avg_sq")


class ZeroOptimizer:
    """AdamW whose moments and float32 masters are spread over the processes; in form a torch optimizer.

    Every process must call every method, `state_dict` too. That is AdamW's own, whole, on the CPU: any number of
    processes reads it. Raises UserError where deepspeed is missing.
    """

    def __init__(self, adamw: torch.optim.AdamW, stage: int, max_norm: float):
        deepspeed = _deepspeed()
        (group,) = adamw.param_groups
        self.weights: list[nn.Parameter] = list(group["params"])
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed divides by accumulation steps, the loop by pairs
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_norm,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,  # of torch's optimizers it knows Adam and AdamW by class name
        }
        self.engine, self.zero, *_ = deepspeed.initialize(
            model=nn.ParameterList(self.weights), optimizer=adamw, model_parameters=self.weights,
            dist_init_required=False, config=settings,
        )  # fmt: skip

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.zero.param_groups

    @property
    def _share(self) -> Tensor:
        """This process's share of the float32 masters, flat."""
        return self.zero.optimizer.param_groups[0]["params"][0]

    def backward(self, loss: Tensor, is_last: bool) -> None:
        """Gradients of one micro-batch; those of the last one of a step are averaged over processes."""
        self.engine.set_gradient_accumulation_boundary(is_last)
        self.engine.backward(loss)

    def gradient_norm(self) -> Tensor:
        """Over all weights, before clipping, (); infinite where a gradient is not finite. `step` clips."""
        return self.zero.scaled_global_norm()  # the scale is 1 in float32

    def step(self) -> None:
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, averaged ones included, which DeepSpeed keeps where no step follows."""
        self.zero.zero_grad(set_to_none)
        for held in (self.zero.averaged_gradients, self.zero.all_grad_tensors):
            held.update(dict.fromkeys(held))

    def state_dict(self) -> dict[str, Any]:
        from deepspeed.utils import safe_get_full_optimizer_state

        keys = {key: value for key, value in self.param_groups[0].items() if key != "params"}
        groups = [keys | {"params": list(range(len(self.weights)))}]
        local = self.zero.optimizer.state.get(self._share)
        if not local:  # no update yet
            return {"state": {}, "param_groups": groups}
        state = {}
        for index, weight in enumerate(self.weights):
            moments = {key: safe_get_full_optimizer_state(weight, key).cpu() for key in MOMENTS}
            state[index] = {"step": local["step"].cpu().clone(), **moments}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over an AdamW's state, and the weights as they are now, of which the masters are copies."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
        from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state

        for weight in self.weights:
            safe_set_full_fp32_param(weight, weight.detach())
        if not state["state"]:
            return
        share, inner = self._share, self.zero.optimizer
        on = share.device if inner.param_groups[0].get("fused") else "cpu"
        inner.state[share] = {"step": state["state"][0]["step"].to(on), **{k: torch.zeros_like(share) for k in MOMENTS}}
        lazy_init_hp_params_optimizer_state(self.weights, share, inner.state)
        for index, weight in enumerate(self.weights):
            for key in MOMENTS:
                safe_set_full_optimizer_state(weight, state["state"][index][key].to(weight.device), key)


def uses_zero(config: Config, num_processes: int) -> bool:
    """Whether the optimizer is spread over processes. One process has nothing to spread."""
    return config.train.sharding in STAGES and num_processes > 1


def save_gathered(root: Path, checkpoint: Checkpoint, keep: int) -> None:
    """`save_checkpoint` by the first process, of what all have gathered."""
    if dist.get_rank() == 0:
        save_checkpoint(root, checkpoint, keep)
    dist.barrier()  # nobody goes on before it counts


def _deepspeed() -> Any:
    try:
        import deepspeed
    except ImportError:
        raise UserError("train.sharding: zero1 and zero2 need DeepSpeed: pip install 'sipo[deepspeed]'") from None
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    return deepspeed
