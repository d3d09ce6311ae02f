"""Preference alignment for diffusion and flow-matching models.

The public core (schedules, timesteps, transition kernels, importance weights, objectives) needs torch alone, and its
names are found here: `from sipo import VPSchedule, pair_terms, SIPO`. They are imported at first use, so that
`import sipo` costs nothing and the command line answers fast.
"""

# ruff: noqa: F401
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers
    from sipo.kernels import DDIM, KERNELS, FlowSDE, Gaussian, log_importance_weight, step_coefficient, transition
    from sipo.losses import DPOCM, LOSSES, SFT, SIPO, DiffusionDPO, beta_equivalents, resolve_horizon
    from sipo.schedule import (
        FlowSchedule,
        VPSchedule,
        add_noise,
        predict_x0_eps,
        previous_timestep,
        training_target,
    )
    from sipo.terms import Branch, ImportanceWeight, PairTerms, pair_terms, term_metrics
    from sipo.text import sipo_text_loss
    from sipo.timesteps import TIMESTEPS, LogitNormal, Uniform, draw_timesteps

_NAMES = {
    "schedule": ("VPSchedule", "FlowSchedule", "add_noise", "training_target", "predict_x0_eps", "previous_timestep"),
    "timesteps": ("Uniform", "LogitNormal", "TIMESTEPS", "draw_timesteps"),
    "kernels": ("DDIM", "FlowSDE", "KERNELS", "Gaussian", "transition", "step_coefficient", "log_importance_weight"),
    "terms": ("ImportanceWeight", "Branch", "PairTerms", "pair_terms", "term_metrics"),
    "losses": ("SFT", "DiffusionDPO", "DPOCM", "SIPO", "LOSSES", "resolve_horizon", "beta_equivalents"),
    "text": ("sipo_text_loss",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _NAMES:
        return import_module(f"sipo.{name}")
    if name in _HOME:
        return getattr(import_module(f"sipo.{_HOME[name]}"), name)
    raise AttributeError(f"module 'sipo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_HOME})
