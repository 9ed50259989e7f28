"""Makes every picture of the README and the page's example: python docs/make_images.py

The scene is rendered by ``maskserve.datasets.synthetic``; what is drawn over it was found by the
shipped model. The screenshot of the page needs Chromium and the group ``test``.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from maskserve import load
from maskserve.datasets.synthetic import render_balloons
from maskserve.runtime.image_io import read_image, write_image
from maskserve.runtime.render import draw

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "src/maskserve/api/static/example.jpg"
IMAGES = ROOT / "docs/images"
PORT = 8097
PAGE_SIZE = (1200, 1180)


def make_example() -> None:
    """The scene that the page offers as its example, and the same with masks beside it."""
    scene, _ = render_balloons(size=(768, 1024), count=9, seed=0)
    write_image(EXAMPLE, scene)
    photo = read_image(EXAMPLE)
    found = load("balloon", precision="f32").predict(photo)
    coverage = found.coverage()
    print(f"{len(found)} balloons found, {coverage.masked_percent:.2f} % masked")
    small = [picture[::2, ::2] for picture in (photo, draw(photo, found))]
    write_image(IMAGES / "example.jpg", np.concatenate(small, axis=1))


def make_screenshot() -> None:
    """The page after a click on its example."""
    address = f"http://127.0.0.1:{PORT}"
    server = subprocess.Popen([sys.executable, "-m", "maskserve", "serve", "--port", str(PORT)])
    try:
        _wait_until_ready(address)
        with tempfile.TemporaryDirectory() as profile:
            options = webdriver.ChromeOptions()
            for flag in ("--headless", "--no-sandbox", f"--user-data-dir={profile}"):
                options.add_argument(flag)
            browser = webdriver.Chrome(options=options)
            browser.set_window_size(*PAGE_SIZE)
            browser.get(address)
            browser.find_element(By.XPATH, "//button[contains(., 'example')]").click()
            WebDriverWait(browser, 30).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, "tbody tr")
            )
            time.sleep(1)  # the picture fades in
            picture = browser.get_screenshot_as_base64()
            browser.quit()
        (IMAGES / "page.png").write_bytes(base64.b64decode(picture))
    finally:
        server.terminate()
        server.wait()


def _wait_until_ready(address: str) -> None:
    for _ in range(100):
        try:
            if requests.get(f"{address}/readyz", timeout=2).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not get ready")


if __name__ == "__main__":
    make_example()
    make_screenshot()
