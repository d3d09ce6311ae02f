"""A killed process leaves no loader worker behind, however workers are started."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from sipo.data.workers import end_with_parent, worker_errors
from sipo.errors import UserError


class Slow:
    """Writes down who loads, then takes its time."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        (self.folder / str(os.getpid())).touch()
        time.sleep(0.05)
        return index


def load(folder: Path, method: str) -> None:
    loader = DataLoader(Slow(folder), num_workers=2, worker_init_fn=end_with_parent, multiprocessing_context=method)
    for _ in loader:
        pass


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_killed_process(tmp_path, method):
    process = multiprocessing.get_context("forkserver").Process(target=load, args=(tmp_path, method))
    process.start()
    assert until(lambda: len(list(tmp_path.iterdir())) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    workers = [int(file.name) for file in tmp_path.iterdir()]
    assert until(lambda: not any(map(is_alive, workers)))


def test_a_workers_traceback_is_cut_to_its_message():
    text = 'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x.py", line 1\nsipo.errors.UserError: pairs.parquet:3: the image is truncated\n'
    with pytest.raises(UserError) as error, worker_errors():
        raise UserError(text)
    assert str(error.value) == "pairs.parquet:3: the image is truncated"
    with pytest.raises(UserError, match=r"^plain$"), worker_errors():
        raise UserError("plain")
