import pytest
from support.synthetic_run import make_run

from sipo.run import RunDir


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> RunDir:
    """A run with everything in it; tests read it and change nothing."""
    return RunDir(make_run(tmp_path_factory.mktemp("runs") / "demo", num_steps=60, num_prompts=24))
