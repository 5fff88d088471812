"""``keyeloop view`` as it is typed: the page as a file, the server, what it says of wrong input."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from keyeloop.agent.cli import main
from keyeloop.runtime.trajectory import Trajectory
from tests.viewer.recorded import EVIL, VIDEO


def typed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        main(["view", *map(str, arguments)])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out + said.err


def test_a_run_becomes_one_page_with_all_in_it(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.html"
    code, said = typed(capsys, store / "looking", "--export", out)
    assert code == 0 and "4 pictures, video-1 inside" in said
    page = out.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is fetched"
    run = Trajectory.read(store / "looking")
    for look in run.looks:
        data = base64.b64encode(run.media.read(look.media.sha256)).decode()
        assert page.count(data) == 1, "each picture is in it once"
    assert base64.b64encode(VIDEO.read_bytes()).decode() in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None and "unsafe" not in policy[1] and "default-src &#39;none&#39;" in policy[1]
    for tag in ("script", "style"):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}" in policy[1], "the browser runs what was written and nothing else"


def test_a_page_of_attacks_is_text(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, store / "deeper" / "evil", "--export", tmp_path / "evil.html")[0] == 0
    page = (tmp_path / "evil.html").read_text()
    assert EVIL not in page and "<svg onload" not in page and page.count("<script>") == 1


def test_without_its_video_a_page_has_the_frames(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyeloop.agent.viewer.export.MOST_SOURCE_BYTES", 1)
    monkeypatch.setattr("keyeloop.agent.viewer.export.MOST_PICTURE_BYTES", 1)
    code, said = typed(capsys, store / "looking", "--export", tmp_path / "run.html")
    assert code == 0 and "4 pictures, made smaller, the frames that were looked at in place of its sources" in said
    assert "data:video" not in (tmp_path / "run.html").read_text()


def test_wrong_input_is_one_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ((tmp_path / "nothing",), "no folder"),
        ((tmp_path, "--export", tmp_path / "x.html"), "no run in"),
        ((store / "looking", "--export", tmp_path / "no" / "x.html"), "cannot be written: No such file"),
    ):
        code, said = typed(capsys, *arguments)
        assert code == 2 and words in said and said.count("\n") == 1, said


def test_the_server_answers_and_ends_with_ctrl_c(store: Path) -> None:
    command = [str(Path(sys.executable).with_name("keyeloop")), "view", str(store / "looking"), "--port", "0"]
    if not shutil.which(command[0]):
        command[:1] = [sys.executable, "-c", "from keyeloop.agent.cli import main; main()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        url = server.stdout.readline().split()[0]
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.url == f"{url}run/looking", "one run is shown at once"
            assert b"What is written on the board?" in answer.read()
        began_s = time.monotonic()
        server.send_signal(signal.SIGINT)
        server.wait(10)
        assert time.monotonic() - began_s < 5
        assert server.stderr.read() == ""
        assert server.returncode in (0, 130)
