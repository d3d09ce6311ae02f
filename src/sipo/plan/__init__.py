"""What a training would cost, from shapes alone: parameters, memory by part, FLOPs per step, the time floor on a GPU."""
