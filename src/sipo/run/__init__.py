"""The run directory: the files in which training, evaluation and everything else meet."""

from sipo.run.directory import RunDir, environment

__all__ = ["RunDir", "environment"]
