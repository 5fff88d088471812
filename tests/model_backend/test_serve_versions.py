"""Versions that fit each other: pairs, their cures, and what a Python says that it has."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from keyeloop.model_backend.sglang.serve.versions import (
    PINNED_TORCH,
    Installed,
    check_versions,
    fitting_release,
    numbers,
    read_installed,
)
from keyeloop.runtime.errors import ConfigError
from tests.model_backend.environments import write_package

GOOD = Installed("/venv/bin/python", "3.12.3", "0.5.17", "2.11.0+cu130", "5.12.1", "0.4.5", ("keyeloop",))


def test_a_pair_that_fits_passes_without_a_word() -> None:
    for sglang, torch in PINNED_TORCH.items():
        assert check_versions(replace(GOOD, sglang=sglang, torch=torch), "cuda") == ()


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("2.11.0+cu130", "for torch 2.11.0.cu130, pip install 'keyeloop.serve.' 'sglang==0.5.17'"),
        ("2.13.0", "for torch 2.13.0, pip install 'keyeloop.serve.' 'sglang==0.5.21'"),
        ("2.14.1", "'sglang==0.5.23'"),
        ("2.9.0", "no release of SGLang is for torch 2.9.0; python3 -m venv serve"),
        (None, "python3 -m venv serve && serve/bin/pip install 'keyeloop.serve.' 'sglang==0.5.23'"),
    ],
)
def test_without_sglang_the_fitting_one_is_named(torch: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=f"no sglang in /venv/bin/python: .*{said}"):
        check_versions(replace(GOOD, sglang=None, torch=torch), "cuda")


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        (
            replace(GOOD, torch="2.13.0"),
            r"0\.5\.17 is built for torch 2\.11\.0, and torch 2\.13\.0 is.*'sglang==0\.5\.21'",
        ),
        (replace(GOOD, torch="2.11.0+cpu"), "built without CUDA"),
        (replace(GOOD, torch=None), "no torch in /venv/bin/python"),
        (replace(GOOD, sglang="0.5.11"), r"older than 0\.5\.17"),
        (replace(GOOD, plugins=("other",)), "not keyeloop's plugin"),
    ],
)
def test_what_cannot_serve_is_told_with_its_cure(installed: Installed, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_versions(installed, "cuda")


def test_on_a_cpu_another_torch_is_remarked_on() -> None:
    (remark,) = check_versions(replace(GOOD, sglang="0.5.23", torch="2.13.0+cpu"), "cpu")
    assert "built for torch 2.14.1" in remark
    with pytest.raises(ConfigError, match="sglang_environment"):
        check_versions(replace(GOOD, sglang=None, torch="2.13.0+cpu"), "cpu")


def test_a_newer_release_is_said_to_be_untried() -> None:
    (remark,) = check_versions(replace(GOOD, sglang="0.6.0", torch="2.15.0"), "cuda")
    assert "0.6.0 is newer" in remark and "not tried" in remark


def test_versions_compare_as_numbers() -> None:
    assert numbers("0.5.17.post1") == (0, 5, 17) < numbers("0.5.9999") and numbers("0.10.0") > numbers("0.9.9")
    assert fitting_release("2.13.0") == "0.5.21" and fitting_release("1.0") is None


def test_a_python_says_what_it_has(tmp_path: Path) -> None:
    write_package(tmp_path, "sglang", "0.5.21", {})
    write_package(tmp_path, "torch", "2.13.0+cu130", {})
    write_package(tmp_path, "plugged", "1.0", {"sglang.srt.plugins": "keyeloop = plugged:register"})
    found = read_installed(environment={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (found.sglang, found.torch, found.torch_release) == ("0.5.21", "2.13.0+cu130", "2.13.0")
    assert "keyeloop" in found.plugins and not found.for_cpu


def test_what_is_no_python_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--python .*nowhere is no Python"):
        read_installed(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="is no Python"):
        read_installed("/bin/true")
