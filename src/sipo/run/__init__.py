"""The run directory: the files through which training, evaluation and studies meet, and what they record."""

from sipo.run.directory import RunDir, environment
from sipo.run.record import RunRecord, read_run

__all__ = ["RunDir", "RunRecord", "environment", "read_run"]
