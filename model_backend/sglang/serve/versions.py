"""Which SGLang goes with which torch, what is installed, and what to install instead."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from keyeloop.runtime.errors import ConfigError

PLUGIN = "keyeloop"
"""Our entry point in SGLang's group ``sglang.srt.plugins``."""
OLDEST = "0.5.17"
"""The oldest whose extension points the plugin knows."""
PINNED_TORCH: Mapping[str, str] = {
    "0.5.17": "2.11.0",
    "0.5.18": "2.13.0",
    "0.5.19": "2.13.0",
    "0.5.20": "2.13.0",
    "0.5.21": "2.13.0",
    "0.5.22": "2.14.1",
    "0.5.23": "2.14.1",
}
"""The torch that each release is built for, from its metadata on PyPI. Kernels of another one do not load."""
RESERVES_VISION_CACHE = (0, 5, 21)
"""From here on SGLang itself takes its cache of picture embeddings out of the tokens' share."""
_PROBE = """
import json, sys
from importlib.metadata import PackageNotFoundError, entry_points, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
told = {name: found(name) for name in ("sglang", "torch", "transformers", "sglang-kernel", "keyeloop")}
told["plugins"] = [point.name for point in entry_points(group="sglang.srt.plugins")]
told["python"] = ".".join(map(str, sys.version_info[:3]))
print(json.dumps(told))
"""


@dataclass(frozen=True)
class Installed:
    """What a Python environment has, as its packages' metadata say; nothing heavy is imported."""

    executable: str
    python: str
    sglang: str | None
    torch: str | None
    transformers: str | None
    kernel: str | None
    plugins: tuple[str, ...]

    @property
    def torch_release(self) -> str | None:
        """``2.11.0`` of ``2.11.0+cu130``."""
        return None if self.torch is None else self.torch.partition("+")[0]

    @property
    def for_cpu(self) -> bool:
        """Whether this torch was built without CUDA, as far as its version tells."""
        return self.torch is not None and self.torch.endswith("+cpu")


def read_installed(executable: str = sys.executable, environment: Mapping[str, str] | None = None) -> Installed:
    """Ask a Python what it has. Raises ConfigError where it cannot be run."""
    try:
        run = subprocess.run(
            [executable, "-c", _PROBE],
            env=None if environment is None else dict(environment),
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        told = json.loads(run.stdout.strip().rpartition("\n")[2])
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"--python {executable} is no Python that can be asked what it has: {error}") from None
    return Installed(
        executable, told["python"], told["sglang"], told["torch"], told["transformers"], told["sglang-kernel"],
        tuple(told["plugins"]),
    )  # fmt: skip


def check_versions(installed: Installed, device: str) -> tuple[str, ...]:
    """Remarks on what was not tried. Raises ConfigError for what cannot serve, with what to install."""
    if installed.sglang is None:
        raise ConfigError(f"no sglang in {installed.executable}: {install_cure(installed, device)}")
    release = numbers(installed.sglang)
    if release < numbers(OLDEST):
        raise ConfigError(f"sglang {installed.sglang} is older than {OLDEST}, the oldest that the plugin knows: "
                          f"{install_cure(installed, device)}")  # fmt: skip
    if installed.torch is None:
        raise ConfigError(f"no torch in {installed.executable}, which has sglang {installed.sglang}: "
                          f"pip install 'sglang=={installed.sglang}' again, with its dependencies")  # fmt: skip
    pinned = next((torch for known, torch in PINNED_TORCH.items() if numbers(known) == release), None)
    if device == "cuda":
        if installed.for_cpu:
            raise ConfigError(f"torch {installed.torch} is built without CUDA: install sglang in an environment of its "
                              "own, which brings the right torch, or serve with --device cpu")  # fmt: skip
        if pinned is not None and pinned != installed.torch_release:
            raise ConfigError(f"sglang {installed.sglang} is built for torch {pinned}, and torch {installed.torch} is "
                              f"installed: {install_cure(installed, device)}")  # fmt: skip
    if PLUGIN not in installed.plugins:
        raise ConfigError(f"{installed.executable} has sglang but not keyeloop's plugin, without which it cannot serve "
                          "Keye: pip install --upgrade keyeloop there")  # fmt: skip
    remarks = []
    if pinned is None:
        remarks.append(f"sglang {installed.sglang} is newer than what this release knows ({_newest()}): not tried")
    elif pinned != installed.torch_release:
        remarks.append(f"sglang {installed.sglang} is built for torch {pinned}; with {installed.torch}, on a CPU only")
    return tuple(remarks)


def install_cure(installed: Installed, device: str) -> str:
    """The command that makes a fitting environment: the release for this torch, else a fresh one with the newest."""
    if device == "cpu":
        return ("SGLang's wheels lack what a CPU needs; `bash .ci/sglang_environment` of keyeloop's repository makes "
                ".venv-sglang, see docs/serving.md, On a CPU")  # fmt: skip
    fitting = None if installed.for_cpu else fitting_release(installed.torch_release)
    if fitting is not None:
        return f"for torch {installed.torch}, pip install 'keyeloop[serve]' 'sglang=={fitting}'"
    fresh = "python3 -m venv serve && serve/bin/pip install"
    why = "" if installed.torch is None else f"no release of SGLang is for torch {installed.torch}; "
    return f"{why}{fresh} 'keyeloop[serve]' 'sglang=={_newest()}', then serve/bin/keyeloop serve"


def fitting_release(torch: str | None) -> str | None:
    """The newest known SGLang for a torch such as ``2.11.0``."""
    fitting = [release for release, pinned in PINNED_TORCH.items() if pinned == torch]
    return max(fitting, key=numbers, default=None)


def numbers(version: str) -> tuple[int, ...]:
    """``(0, 5, 17)`` of ``0.5.17.post1``, for comparing."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _newest() -> str:
    return max(PINNED_TORCH, key=numbers)
