"""The processes that `accelerate launch` or torchrun started, and how they share work.

A training's processes exchange tensors (`Processes.gather`). Work that falls into independent units (shards, batches of samples)
needs no collectives: each process takes units until none is left, and adds what it made to files.
"""

from sipo.processes.processes import ALONE, Processes, batches, environment_of_programs, join_processes

__all__ = ["ALONE", "Processes", "batches", "environment_of_programs", "join_processes"]
