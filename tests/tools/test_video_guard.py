"""The decoding child: what it may not do, and what happens when it dies, stalls or is stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keyeloop.runtime.evidence import Region
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.child.container import open_container
from keyeloop.tools.video.decoder import Decoder
from tests.tools.moving_pictures import write_video

SECOND = [number * 40 for number in range(25)]
ALL = Region(0, 0, 160, 96)


@pytest.fixture
def board(tmp_path: Path) -> str:
    return str(write_video(tmp_path / "board.mp4", SECOND))


def _locked_down(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code after everything it imports was loaded and the child's rights were given up."""
    program = (
        "import ctypes, json, os, resource, socket, subprocess, threading\n"
        "from keyeloop.tools.confined.limits import allow_cpu, lock_down\n"
        f"filtered = lock_down()\n{code}"
    )
    environment = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


def test_a_locked_down_process_reaches_nothing() -> None:
    done = _locked_down(
        """
def refused(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0

results = {
    "filtered": filtered,
    "uid": os.geteuid(),
    "read": refused(lambda: os.open("/etc/passwd", os.O_RDONLY)),
    "write": refused(lambda: os.open("/tmp/left-behind", os.O_WRONLY | os.O_CREAT)),
    "socket": refused(lambda: socket.socket()),
    "fork": refused(os.fork),
    "exec": refused(lambda: os.execv("/bin/true", ["true"])),
    "kill": refused(lambda: os.kill(os.getppid(), 0)),
    "memory": None,
    "limits": [resource.getrlimit(limit)[1] for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)],
}
try:
    bytearray(5 << 30)
except MemoryError:
    results["memory"] = "refused"
thread = threading.Thread(target=lambda: results.update(thread="runs"))
thread.start()
thread.join()
print(json.dumps(results))
"""
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["uid"] == (65534 if os.geteuid() == 0 else os.geteuid())
    assert results["memory"] == "refused" and results["limits"] == [0, 0]
    assert results["thread"] == "runs"
    if results["filtered"]:
        denied = {name: results[name] for name in ("read", "write", "socket", "fork", "exec", "kill")}
        assert set(denied.values()) == {1}, f"not EPERM everywhere: {denied}"
    else:
        assert os.uname().machine not in ("x86_64", "aarch64")


def test_processor_time_is_bounded_for_each_request() -> None:
    done = _locked_down("allow_cpu(0.1)\nwhile True: pass")
    assert done.returncode == -signal.SIGXCPU


def test_the_child_runs_without_privileges_and_outside_this_environment(
    board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "do not pass on")
    with Decoder() as decoder:
        decoder.probe(board)
        status = Path(f"/proc/{decoder.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split()
        assert int(fields["CapEff"], 16) == 0
        assert fields["Seccomp"] == ("2" if decoder.filtered else "0")
        if os.geteuid() == 0:
            assert b"SECRET" not in Path(f"/proc/{decoder.pid}/environ").read_bytes()


def _segment_and_listener(tmp_path: Path) -> tuple[Path, socket.socket]:
    segment = write_video(tmp_path / "segment.ts", SECOND)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    return segment, listener


def test_a_playlist_named_mp4_opens_nothing(tmp_path: Path) -> None:
    segment, listener = _segment_and_listener(tmp_path)
    with listener, Decoder() as decoder:
        for address in (segment, f"file:{segment}", f"http://127.0.0.1:{listener.getsockname()[1]}/x.ts"):
            path = tmp_path / "film.mp4"
            path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
            with pytest.raises(Unusable, match="HLS playlist"):
                decoder.probe(str(path))
            path.unlink()
            decoder.stop()
            decoder._identities.clear()
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "dash"])
def test_even_a_demuxer_that_follows_addresses_gets_nowhere(demuxer: str, tmp_path: Path) -> None:
    """The second wall, behind the allow-list: here the playlist is opened as what it is."""
    segment, listener = _segment_and_listener(tmp_path)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.ts"
    playlists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {segment}\nfile {address}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" '
        f'bandwidth="1"><BaseURL>{segment}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    }
    path = tmp_path / "film.mp4"
    path.write_text(playlists[demuxer])
    fd = os.open(path, os.O_RDONLY)
    with listener:
        with pytest.raises(Unusable, match="cannot be read as"):
            open_container(fd, demuxer)
        with pytest.raises(TimeoutError):
            listener.accept()
    os.close(fd)


def _ask_while_stopped(decoder: Decoder, board: str) -> tuple[threading.Thread, list[Exception]]:
    """A request that is under way in a child which stands still."""
    decoder.probe(board)
    assert decoder.pid is not None
    os.kill(decoder.pid, signal.SIGSTOP)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            decoder.cut(board, [0.0], ALL, 16, 16)
        except Exception as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    return thread, caught


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        (signal.SIGXCPU, "took more than 120 s of processor time to decode and was stopped; look at fewer frames"),
        (signal.SIGSEGV, "crashed the decoder .exit status -11.: it is damaged; convert it to h264 in mp4"),
    ],
)
def test_a_dead_child_is_told_and_replaced(ending: signal.Signals, told: str, board: str) -> None:
    with Decoder() as decoder:
        thread, caught = _ask_while_stopped(decoder, board)
        first = decoder.pid
        assert first is not None
        os.kill(first, ending)
        os.kill(first, signal.SIGCONT)
        thread.join(20)
        with pytest.raises(Unusable, match=told):
            raise caught[0]
        assert len(decoder.cut(board, [0.0], ALL, 16, 16)) == 1
        assert decoder.pid != first


def test_a_child_killed_between_requests_is_replaced_unnoticed(board: str) -> None:
    with Decoder() as decoder:
        decoder.probe(board)
        assert decoder.pid is not None
        os.kill(decoder.pid, signal.SIGKILL)
        time.sleep(0.1)
        assert decoder.probe(board).duration_s == 1.0


def test_a_stalled_child_is_ended_in_time(board: str) -> None:
    with Decoder() as decoder:
        decoder.probe(board)
        first = decoder.pid
        assert first is not None
        decoder._wall_s = 0.5
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(Unusable, match=r"took longer than 0.5 s to decode and was stopped; look at fewer frames"):
            decoder.cut(board, [0.0], ALL, 16, 16)
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        decoder._wall_s = 60
        assert decoder.probe(board).width == 160


def test_stopping_frees_a_request_in_progress(board: str) -> None:
    with Decoder() as decoder:
        thread, caught = _ask_while_stopped(decoder, board)
        decoder.stop()
        thread.join(20)
        assert not thread.is_alive() and "was being decoded when that was stopped" in str(caught[0])
        assert decoder.probe(board).width == 160


def test_a_decoder_stopped_while_idle_is_replaced(board: str) -> None:
    with Decoder() as decoder:
        for _ in range(3):
            assert decoder.probe(board).width == 160
            decoder.stop()


def test_closing_leaves_no_process_and_no_descriptor(board: str) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    decoder = Decoder()
    decoder.probe(board)
    pid = decoder.pid
    assert pid is not None
    decoder.close()
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Unusable, match="its run has ended"):
        decoder.probe(board)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_child_ends_when_its_parent_is_gone(board: str) -> None:
    program = (
        "import os, sys\nfrom keyeloop.tools.video.decoder import Decoder\n"
        "decoder = Decoder()\ndecoder.probe(sys.argv[1])\nprint(decoder.pid, flush=True)\nos._exit(0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", program, board], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(done.stdout)}").exists():
        state = Path(f"/proc/{int(done.stdout)}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


def test_a_file_that_changed_since_it_was_opened_is_refused(board: str) -> None:
    with Decoder() as decoder:
        decoder.probe(board)
        with Path(board).open("ab") as file:
            file.write(b"more")
        with pytest.raises(Unusable, match="changed on disk since it was first opened; begin a new run"):
            decoder.cut(board, [0.0], ALL, 16, 16)


def test_many_files_through_one_child(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{number}.mp4", SECOND[: number + 1]) for number in range(15)]
    with Decoder() as decoder:
        lengths = [decoder.probe(str(path)).duration_s for path in [*paths, *paths]]
        pid = decoder.pid
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir())) if os.geteuid() == 0 else 0
    assert lengths == [pytest.approx((number + 1) / 25) for number in range(15)] * 2
    assert descriptors < 20
