"""The stand-ins for kernels that SGLang's wheels have for GPUs only."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from keyeloop.model_backend.sglang.cpu_kernels.install import install
from keyeloop.runtime.errors import ConfigError

REGISTRATIONS = "import torch\nimport torchvision.extension  # noqa: F401\n\nrest = 1\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages folder with torchvision in it."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "_meta_registrations.py").write_text(REGISTRATIONS)
    return tmp_path


def test_the_stand_in_says_whose_it_is_and_refuses_to_compute(site: Path) -> None:
    install(site)
    spec = importlib.util.spec_from_file_location("keyeloop_stand_in", site / "sgl_kernel" / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "keyeloop" in module.__version__
    with pytest.raises(NotImplementedError, match=r"sgl_kernel\.topk_softmax.*keyeloop"):
        module.topk_softmax(1, 2)
    assert not hasattr(module, "__path_of_nothing__")
    assert "keyeloop_stand_in" not in sys.modules


def test_torchvision_gets_two_names_once(site: Path) -> None:
    install(site)
    written = (site / "torchvision" / "_meta_registrations.py").read_text()
    assert '"nms", "qnms"' in written and written.endswith("rest = 1\n")
    assert "already" in install(site)[1]
    assert (site / "torchvision" / "_meta_registrations.py").read_text() == written


def test_a_torchvision_that_is_not_known_is_left_alone(site: Path) -> None:
    (site / "torchvision" / "_meta_registrations.py").write_text("rest = 1\n")
    with pytest.raises(ConfigError, match=r"torchvision 0\.28\.0"):
        install(site)


def test_the_real_kernels_are_never_hidden(site: Path) -> None:
    info = site / "sglang_kernel-0.4.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang-kernel\nVersion: 0.4.7\n")
    with pytest.raises(ConfigError, match="real sglang-kernel"):
        install(site)
    assert not (site / "sgl_kernel").exists()
