"""``keyeloop verify`` on real SGLang with the plugin: nothing about keye-tiny is left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.agent.verification.verify import verify
from tests.sglang.served import Served

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]


async def test_everything_is_confirmed_on_a_real_server(served: Served, tmp_path: Path) -> None:
    report = await verify(["keye-tiny", f"{served.url}/v1"], runs=tmp_path)
    assert [finding for finding in report.findings if finding.state != "confirmed"] == []
    assert {"sparse-live", "video-live", "time-live", "boxes-live"} <= {finding.key for finding in report.findings}
