"""Shared by all tests: few threads (the machines have two cores), and a cache of their own."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Stores that tests build never land in, or come from, the user's cache."""
    os.environ["STOPGRAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
