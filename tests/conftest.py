"""What every test gets: caches of its own, no settings from outside; and skips that may not happen."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before any of them is imported
    os.environ.setdefault(_name, "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        metavar="MARKER",
        action="append",
        default=[],
        help="a skipped test with this marker fails: what it needs must be installed here",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = [marker for marker in item.config.getoption("--require") if item.get_closest_marker(marker)]
    if report.skipped and required and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but {', '.join(required)} is required here: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def _own_surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No cache of this user is read or written, and no setting of this shell counts."""
    patch = pytest.MonkeyPatch()
    home: Path = tmp_path_factory.mktemp("cache")
    patch.setenv("XDG_CACHE_HOME", str(home))
    for name in [name for name in os.environ if name.startswith("KEYELOOP_")]:
        patch.delenv(name)
    yield
    patch.undo()
