"""Ports for tests that run beside each other."""

import itertools
import os
import socket

# Below the ports that a system hands out itself, and a range for each of pytest's workers: between its choice here and
# its use in another process nobody else takes it.
FIRST, WORKERS, EACH = 10_000, 40, 500
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
COUNT = itertools.count(os.getpid())  # two runs of the tests at once seldom meet


def free_port() -> int:
    while True:
        port = FIRST + WORKER * EACH + next(COUNT) % EACH
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
