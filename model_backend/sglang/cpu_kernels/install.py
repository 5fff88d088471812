"""Puts the CPU stand-ins into the running environment: a ``sgl_kernel`` module, and names of two torchvision operators.

torchvision's wheel is built for CUDA; without CUDA its compiled library does not load, and its own import then fails on
the missing operators ``nms`` and ``qnms``. The cure names them, without an implementation, before torchvision asks.
SGLang itself is not touched.
"""

from __future__ import annotations

import shutil
import sysconfig
from importlib import metadata
from pathlib import Path

from keyeloop.runtime.errors import ConfigError

_NAMES = """
if not torchvision.extension._has_ops():  # added by keyeloop: names of operators, whose code is in the CUDA library
    _keyeloop = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _keyeloop.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
_AFTER = "import torchvision.extension  # noqa: F401\n"


def install(site: Path | None = None) -> list[str]:
    """Write both stand-ins and say what was done; a second call changes nothing.

    ``site`` is the environment's site-packages folder, that of the running Python by default. Raises ConfigError where
    the real ``sglang-kernel`` is installed, which serves a GPU and must not be hidden.
    """
    folder = site or Path(sysconfig.get_paths()["purelib"])
    return [_stand_in_kernels(folder), _name_operators(folder)]


def _stand_in_kernels(site: Path) -> str:
    home = site / "sgl_kernel"
    if any(_installed(name, site) for name in ("sglang-kernel", "sgl-kernel")):
        raise ConfigError(f"{home} is the real sglang-kernel: the CPU stand-in is for environments without it")
    home.mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("sgl_kernel_stand_in.py"), home / "__init__.py")
    return f"{home}: keyeloop's CPU stand-in"


def _installed(name: str, site: Path) -> bool:
    return any(found.name == name for found in metadata.distributions(name=name, path=[str(site)]))


def _name_operators(site: Path) -> str:
    path = site / "torchvision" / "_meta_registrations.py"
    if not path.is_file():
        return "torchvision: not installed"
    text = path.read_text(encoding="utf-8")
    if _NAMES in text:
        return f"{path}: already names nms and qnms"
    if _AFTER not in text:
        raise ConfigError(f"{path}: this torchvision is not known here; install torchvision 0.28.0")
    path.write_text(text.replace(_AFTER, _AFTER + _NAMES, 1), encoding="utf-8")
    return f"{path}: names nms and qnms where its library does not load"
