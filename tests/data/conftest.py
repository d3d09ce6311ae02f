"""Tables that tests convert go to a folder of this test session, not to the user's cache of Hugging Face `datasets`."""

import datasets
import pytest


@pytest.fixture(autouse=True, scope="session")
def arrow_cache(tmp_path_factory: pytest.TempPathFactory):
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("arrow")
    yield
    datasets.config.HF_DATASETS_CACHE = before
