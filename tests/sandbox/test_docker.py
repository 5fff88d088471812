"""What only Docker has: a daemon that is asked, images, runtimes, containers that must not stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from keyeloop.runtime.errors import InputError, SandboxUnavailable
from keyeloop.sandbox import Mount, SandboxSpec, open_sandbox
from keyeloop.sandbox.docker.container import create
from keyeloop.sandbox.docker.daemon import GVISOR, IMAGE, Daemon, connect
from keyeloop.sandbox.docker.engine import Docker, choose
from keyeloop.sandbox.docker.image import build_image
from keyeloop.sandbox.docker.owner import MACHINE, OWNER, labels, sweep
from tests.sandbox.attacks import attacks
from tests.sandbox.engines import QUICK, SYSTEM_PYTHON, docker
from tests.sandbox.host_view import wait_for

SPEC = SandboxSpec(limits=QUICK)


@pytest.fixture(scope="module")
def daemon() -> Daemon:
    docker()
    return connect()


def containers(daemon: Daemon, owner: str = "") -> list[dict[str, Any]]:
    """All containers of this machine, or those of one process."""
    label = f"{OWNER}={owner}" if owner else f"{MACHINE}={labels()[MACHINE]}"
    return list(daemon.api.containers(all=True, filters={"label": label}))


@pytest.mark.docker
def test_the_daemon_is_asked_for_every_restriction(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "canary")
    with Docker(SPEC, runtime="runc") as sandbox:
        assert sandbox.isolation.seccomp
        (found,) = containers(daemon, labels()[OWNER])
        facts = daemon.api.inspect_container(found["Id"])
    host, config = facts["HostConfig"], facts["Config"]
    asked = {name: host[name] for name in ("ReadonlyRootfs", "NetworkMode", "CapDrop", "Privileged", "AutoRemove")}
    assert asked == {
        "ReadonlyRootfs": True, "NetworkMode": "none", "CapDrop": ["ALL"], "Privileged": False, "AutoRemove": True,
    }  # fmt: skip
    assert "no-new-privileges:true" in host["SecurityOpt"] and not any("unconfined" in o for o in host["SecurityOpt"])
    assert host["Memory"] == host["MemorySwap"] == QUICK.memory_bytes
    assert (host["PidsLimit"], host["NanoCpus"]) == (QUICK.pids + 1, int(QUICK.cpus * 1e9))
    assert host["LogConfig"]["Type"] == "none" and not host["Binds"] and not host["CapAdd"]
    assert int(config["User"].split(":")[0]) > 1000
    assert "canary" not in str(facts)


@pytest.mark.docker
def test_the_kernel_confirms_what_isolation_says(daemon: Daemon) -> None:
    with Docker(SPEC, runtime="runc") as sandbox:
        about = sandbox.isolation
        (found,) = containers(daemon, labels()[OWNER])
        pid = daemon.api.inspect_container(found["Id"])["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(about.uid)] * 4
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert int(fields.get("Seccomp_filters", "2")) >= 2, "the daemon's filter and ours"
    assert (about.memory, about.pids, about.boundary) == ("cgroup", "cgroup", "namespaces")


@pytest.mark.docker
@pytest.mark.parametrize("code", ["", "while True: pass", "import os\nos.fork()\nimport time\ntime.sleep(600)"])
def test_a_host_killed_leaves_no_container(daemon: Daemon, code: str) -> None:
    program = (
        "import sys, time\n"
        "from keyeloop.sandbox.docker.engine import Docker\n"
        "from keyeloop.sandbox.docker.owner import OWNER, labels\n"
        "sandbox = Docker(runtime='runc')\n"
        "sandbox.start()\n"
        "print(labels()[OWNER], flush=True)\n"
        "sandbox.exec(sys.argv[1], timeout_s=600) if sys.argv[1] else time.sleep(600)"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", program, code], stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH="src"), text=True
    )
    assert host.stdout is not None
    owner = host.stdout.readline().strip()
    assert len(containers(daemon, owner)) == 1
    os.kill(host.pid, signal.SIGKILL)
    host.communicate()
    assert wait_for(lambda: not containers(daemon, owner), 5), containers(daemon, owner)


@pytest.mark.docker
def test_what_a_dead_process_left_is_swept_and_nothing_else(daemon: Daemon) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    image = daemon.image_id(IMAGE)
    dead, foreign = ({**labels(), OWNER: f"{gone.pid}:1"}, {OWNER: f"{gone.pid}:1", MACHINE: "another"})
    made = {
        name: daemon.api.create_container(image, ["python3"], labels=marks, network_disabled=True)["Id"]
        for name, marks in (("dead", dead), ("foreign", foreign), ("ours", labels()), ("no one's", {}))
    }
    try:
        assert sweep(daemon) == [made["dead"]]
        left = {container["Id"] for container in daemon.api.containers(all=True)}
        assert made["dead"] not in left and {made["foreign"], made["ours"], made["no one's"]} <= left
    finally:
        for name, container in made.items():
            if name != "dead":
                daemon.api.remove_container(container, force=True)


@pytest.fixture(scope="module")
def bare(daemon: Daemon) -> Iterator[str]:
    """An image of the system's Python and nothing else."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"no {SYSTEM_PYTHON}")
    name = "keyeloop-test:bare"
    made = build_image(name, SYSTEM_PYTHON, ())
    assert made.name == name and made.versions == {} and 10e6 < made.size_bytes < 300e6
    yield name
    daemon.api.remove_image(name)


@pytest.mark.docker
def test_an_image_can_be_made_of_any_python_and_named(bare: str) -> None:
    with open_sandbox(replace(SPEC, image=bare), "docker") as sandbox:
        told = sandbox.exec("import importlib.util, sys\nprint(sys.prefix, importlib.util.find_spec('numpy'))")
        assert told.stdout == "/opt/python None\n"
        assert sandbox.exec("import ssl, sqlite3, ctypes, lzma, subprocess\nsubprocess.run(['ls', '/'])").status == "ok"


@pytest.mark.docker
def test_our_image_draws_and_sees(daemon: Daemon) -> None:
    code = (
        "import cv2, numpy as np, matplotlib.pyplot as plt\nfrom PIL import Image\n"
        "picture = cv2.cvtColor(np.full((8, 8, 3), 200, np.uint8), cv2.COLOR_RGB2GRAY)\n"
        "plt.plot([1, 2, 4])\nplt.show()\nImage.fromarray(picture)"
    )
    with Docker(SPEC) as sandbox:
        result = sandbox.exec(code)
    assert result.status == "ok", result
    pictures = [display.data["image/png"] for display in result.displays]
    assert len(pictures) == 2 and all(bytes(data[:4]) == b"\x89PNG" for data in pictures if isinstance(data, bytes))


@pytest.mark.gvisor
def test_gvisor_brings_a_kernel_of_its_own(daemon: Daemon) -> None:
    if GVISOR not in daemon.runtimes:
        pytest.skip("the Docker daemon has no runtime runsc")
    with Docker(SPEC) as sandbox:
        assert sandbox.isolation.boundary == "gvisor" and not sandbox.isolation.network, "chosen where it is registered"
        kernel = sandbox.exec("import os\nprint(os.uname().release)").stdout.strip()
        assert kernel and kernel != os.uname().release
        assert sandbox.exec("x = 417").status == "ok" and sandbox.exec("print(x + 88)").stdout == "505\n"
        assert sandbox.exec("while True: pass", timeout_s=0.5).status == "timeout"
        for name in ("write the host", "reach a network"):
            assert sandbox.exec(attacks("/etc/shadow", 1, "none", os.getpid())[name]).stdout == "held\n"
        sandbox.put("in.txt", b"sent")
        assert sandbox.exec("open('/out/back', 'w').write(open('in.txt').read())").artifacts[0].size == 4
        assert sandbox.get("/out/back") == b"sent"
        ended = sandbox.exec("print('last words')\nimport os\nos._exit(3)")
        assert (ended.status, ended.stdout, ended.state_lost) == ("crashed", "last words\n", True)


@pytest.mark.docker
def test_auto_takes_docker_where_there_is_no_bubblewrap(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("keyeloop.sandbox.bubblewrap.find_bwrap", lambda: None)
    with open_sandbox(SPEC) as sandbox:
        assert sandbox.isolation.engine == "docker"
        assert sandbox.exec("print(1)").stdout == "1\n"


@pytest.mark.docker
def test_what_is_asked_for_and_not_there_is_told(daemon: Daemon, tmp_path: Path) -> None:
    for spec, runtime, said in (
        (SandboxSpec(image="no-such-image:1"), None, "no image no-such-image:1; .*docker pull"),
        (SandboxSpec(python=Path("/usr/bin/python3")), None, "build-image --python"),
        (SandboxSpec(), "no-such-runtime", "no runtime no-such-runtime"),
    ):
        with pytest.raises(SandboxUnavailable, match=said):
            choose(spec, runtime)
    found = Docker.available(SandboxSpec(image="no-such-image:1"))
    assert not found.ok and found.reason.endswith("no-such-image:1") and found.remedy.startswith("load it")
    (tmp_path / "clip").touch()
    mounted = SandboxSpec(mounts=(Mount(tmp_path.resolve() / "clip", PurePosixPath("clip")),))
    far = replace(daemon, address="tcp://far.example:2375")
    with pytest.raises(SandboxUnavailable, match=r"does not see this machine's files; send them with put"):
        create(far, IMAGE, None, 1000, mounted)


def test_a_package_that_is_missing_is_named_with_its_cure() -> None:
    with pytest.raises(InputError, match=r"lacks no-such-package: .* -m pip install no-such-package"):
        build_image(packages=("no-such-package",))
    with pytest.raises(InputError, match="cannot be put into an image"):
        build_image(python=Path("/bin/echo"), packages=())


def test_without_any_engine_each_is_named_and_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("keyeloop.sandbox.bubblewrap.find_bwrap", lambda: None)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"bubblewrap.* / no Docker daemon answers at .*none\.sock.*no runsc"):
        open_sandbox()
