"""GenEval (Ghosh et al. 2023): its vocabulary, prompts, layout, rules and table, and detectors behind one protocol.

The judge is pure: it needs neither torch nor anything else of sipo.
"""

from sipo.geneval.rules import Detection, Judgement, judge

__all__ = ["Detection", "Judgement", "judge"]
