"""Where control groups can be made: version 1, version 2, both, none; and their limits where this user may set them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyeloop.sandbox import Limits
from keyeloop.sandbox.cgroup import Cgroup, CgroupHome, find_cgroup_home


def written(folder: Path, cgroup: str, mounts: list[tuple[str, str, Path, str]]) -> Path:
    """A ``/proc/self`` with a process's groups and mounts of (type, root, mount point, options)."""
    folder.mkdir(exist_ok=True)
    (folder / "cgroup").write_text(cgroup)
    lines = [f"31 23 0:28 {root} {at} rw,relatime - {kind} {kind} {options}\n" for kind, root, at, options in mounts]
    (folder / "mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n" + "".join(lines))
    return folder


def second(folder: Path, enabled: str) -> Path:
    """A group of version 2 that hands on what it has; plain files cannot be told to enable more."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup.subtree_control": enabled, "cgroup.controllers": enabled, "cgroup.procs": ""}.items():
        (folder / name).write_text(text)
    return folder


def test_version_1_takes_each_controller_below_its_own_group(tmp_path: Path) -> None:
    for name in ("memory/box/inner", "pids", "cpu,cpuacct"):
        (tmp_path / name).mkdir(parents=True)
    proc = written(
        tmp_path / "proc",
        "4:memory:/box/inner\n3:pids:/gone\n2:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n",
        [
            ("cgroup", "/", tmp_path / "memory", "rw,memory"), ("cgroup", "/", tmp_path / "pids", "rw,pids"),
            ("cgroup", "/", tmp_path / "cpu,cpuacct", "rw,cpu,cpuacct"), ("cgroup2", "/", tmp_path / "unified", "rw"),
        ],
    )  # fmt: skip
    home = find_cgroup_home(proc)
    assert home == CgroupHome(
        1, {"memory": tmp_path / "memory/box/inner", "pids": tmp_path / "pids", "cpu": tmp_path / "cpu,cpuacct"}
    )


def test_version_2_needs_a_group_that_hands_controllers_on(tmp_path: Path) -> None:
    mount = tmp_path / "unified"
    user = second(mount / "user", "memory pids")
    second(mount, "cpu memory pids")
    own = user / "session"
    own.mkdir()
    proc = written(tmp_path / "proc", "0::/user/session\n", [("cgroup2", "/", mount, "rw")])
    assert find_cgroup_home(proc) == CgroupHome(2, {"memory": user, "pids": user})
    second(own, "")
    second(user, "cpu")
    assert find_cgroup_home(proc) == CgroupHome(2, dict.fromkeys(("memory", "pids", "cpu"), mount))
    second(mount, "memory")
    assert find_cgroup_home(proc) == CgroupHome()
    seen = second(tmp_path / "container", "memory pids")
    inside = written(tmp_path / "proc", "0::/\n", [("cgroup2", "/somewhere", seen, "rw")])
    assert find_cgroup_home(inside) == CgroupHome(2, {"memory": seen, "pids": seen})


def test_no_group_anywhere(tmp_path: Path) -> None:
    assert find_cgroup_home(written(tmp_path / "proc", "0::/\n", [])) == CgroupHome()
    assert "memory" not in CgroupHome()


def test_version_2_limits_are_written_and_read(tmp_path: Path) -> None:
    """Plain files stand for the kernel's: this machine may have version 1 only."""
    home = CgroupHome(2, dict.fromkeys(("memory", "pids", "cpu"), tmp_path))
    group = Cgroup(home, Limits(memory_bytes=1 << 20, pids=7, cpus=0.5))
    (folder,) = tmp_path.glob(f"keyeloop-{os.getpid()}-*")
    told = {path.name: path.read_text() for path in folder.iterdir()}
    assert told == {"memory.max": "1048576", "pids.max": "8", "cpu.max": "50000 100000"}
    (folder / "memory.events").write_text("low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\n")
    assert group.oom_kills() == 2


@pytest.mark.skipif(not find_cgroup_home().folders, reason="no control group can be made here")
def test_real_limits_hold_and_go_away(tmp_path: Path) -> None:
    home = find_cgroup_home()
    left = [folder / "keyeloop-999999999-1-ab" for folder in set(home.folders.values())]
    for folder in left:
        folder.mkdir()
    group = Cgroup(home, Limits(memory_bytes=64 << 20, pids=8))
    assert not any(folder.exists() for folder in left), "groups of dead owners are swept away"
    code = "import sys; sys.stdin.readline(); bytearray(256 << 20)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    group.add([child.pid])
    child.communicate(b"\n", timeout=20)
    if "memory" in home:
        assert child.returncode == -9 and group.oom_kills() == 1
    group.close()
    assert not [path for folder in home.folders.values() for path in folder.glob(f"keyeloop-{os.getpid()}-*")]
