"""A real Chromium on a real server: the command as it is typed, pages that may not complain, axe-core's verdict."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
GRAVE = ("serious", "critical")
PHONE = {"width": 390, "height": 844}


@contextmanager
def served(root: Path) -> Iterator[str]:
    """``keyeloop view`` over ``root``; gives its address."""
    command = [sys.executable, "-c", "from keyeloop.agent.cli import main; main()", "view", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()
            server.wait(10)


def browser_path() -> str:
    """A Chromium of this machine; skips where there is none, or nothing that drives it."""
    pytest.importorskip("playwright.sync_api", reason="no playwright: .ci/browser_environment installs it")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium: .ci/browser_environment installs it")
    return path


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser. While it is there, an event loop runs in this thread."""
    path = browser_path()
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, **options: Any) -> Iterator[Any]:
    """A page in a context of its own; afterwards nothing may have gone wrong in it."""
    problems: list[str] = []
    context = browser.new_context(**options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda said: problems.append(f"{said.type}: {said.text}") if said.type == "error" else None)
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    try:
        yield page
    finally:
        context.close()
    assert not problems, problems


def grave_faults(page: Any) -> list[str]:
    """What axe-core finds serious or worse on the page as it is."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{fault['impact']}: {fault['id']}: {[node['html'][:160] for node in fault['nodes'][:3]]}"
        for fault in found
        if fault["impact"] in GRAVE
    ]
