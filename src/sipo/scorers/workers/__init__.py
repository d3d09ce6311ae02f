"""Scripts that run in environments of their own (see `sipo.scorers.worker`); nothing here imports sipo."""
