"""``keyeloop --version``."""

from __future__ import annotations

import pytest

from keyeloop import __version__
from keyeloop.agent.cli import main


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"keyeloop {__version__}\n"
