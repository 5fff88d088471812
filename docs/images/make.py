"""Makes the pictures of the viewer: ``PYTHONPATH=src:. python docs/images/make.py``.

Needs ``bash .ci/browser_environment``. Renders a board video, has the embedded model answer questions about it, and
opens ``keyeloop view`` on the runs in Chromium.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from keyeloop import Agent
from keyeloop.tools.demo_video.record import record
from tests.viewer.browsing import BROWSERS, served

HERE = Path(__file__).resolve().parent
SEED = 5
ZOOMED = "Zoom in on the small sign at 43 s and read it."
OTHERS = (
    "When does 413 first appear?",
    "Add up the numbers shown at 52s and second 58.",
    "What number is on the board at 34 s?",
    "Read the number on the board at 16s.",
    "Take the number on the board at second 44 and subtract the one at second 52.",
    "Which number does the board show at 0:58?",
)
QUALITY = 84


def make_runs(folder: Path) -> tuple[str, dict[str, str]]:
    """Names of the run with a zoom, and of the others by their questions."""
    video = record(folder / "board.mp4", seed=SEED).path
    agent = Agent("keye-tiny", runs=folder / "runs")
    others = {question: agent.run_sync(question, video=video).run.name for question in OTHERS}
    return agent.run_sync(ZOOMED, video=video, watch="overview").run.name, others


def take(page: Page, name: str) -> None:
    """What is seen, as ``name``.webp."""
    pixels = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    cv2.imwrite(str(HERE / f"{name}.webp"), pixels, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])


def show(page: Page, url: str, mark: str) -> None:
    """Open a run and choose a look; wait until the source has played on from there."""
    page.goto(url)
    page.locator(mark).first.click()
    page.wait_for_timeout(1200)
    page.evaluate("document.querySelector('video').pause(); document.activeElement.blur()")
    page.evaluate(f"document.querySelector('video').currentTime = document.querySelector('{mark}').dataset.time")
    page.wait_for_timeout(900)


def main() -> None:
    """All of them."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        zoomed, others = make_runs(folder)
        with served(folder / "runs") as url, sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=["--no-sandbox"]
            )

            def page(width: int, height: int, scheme: Any = "light", **options: Any) -> Page:
                return browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, **options)

            for scheme in ("light", "dark"):
                seen = page(1280, 900, scheme)
                show(seen, f"{url}run/{zoomed}", ".mark.crop")
                take(seen, f"run-{scheme}")
            seen = page(1280, 620)
            seen.goto(url)
            take(seen, "list")
            left, right = others[OTHERS[1]], others[OTHERS[4]]
            seen.goto(f"{url}compare?run={left}&run={right}")
            take(seen, "compare")
            seen = page(390, 780, device_scale_factor=1.5, is_mobile=True, has_touch=True)
            show(seen, f"{url}run/{zoomed}", ".mark.crop")
            take(seen, "phone")
            browser.close()


if __name__ == "__main__":
    main()
