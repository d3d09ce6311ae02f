"""SIPO on a language model's log-probabilities: the loss, which needs torch alone, and `sipo.text.trainer` for TRL."""

from sipo.text.loss import sipo_text_loss

__all__ = ["sipo_text_loss"]
