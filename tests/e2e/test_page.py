"""The page in Chromium, in front of a real HTTP server with a fake network."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Response
from pydantic import SecretStr
from selenium import webdriver
from selenium.common import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server

from api_fakes import FakeRegistry, make_registry
from maskserve.api import ServerSettings, create_app
from maskserve.api.keys import ApiKeys
from maskserve.runtime.image_io import encode_image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
WAIT_S = 20

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or CHROMEDRIVER is None, reason="chromium or chromedriver is not installed"
)


@pytest.fixture(scope="module")
def photo() -> bytes:
    y, x = np.mgrid[0:300, 0:400]
    return encode_image(np.stack([x // 2, y // 2, x // 4], axis=-1).astype(np.uint8), "image/jpeg")


@pytest.fixture
def registry() -> FakeRegistry:
    return make_registry("balloon", "second")


@pytest.fixture
def url(registry: FakeRegistry, photo: bytes) -> Iterator[str]:
    with serving(ServerSettings(), registry, photo) as (url, _):
        yield url


@contextmanager
def serving(
    settings: ServerSettings, registry: FakeRegistry, photo: bytes
) -> Iterator[tuple[str, ApiKeys]]:
    """The address of a server, and its keys."""
    app = create_app(settings, registry)
    send_static_file = app.view_functions["static"]

    def static(filename: str) -> Any:
        if filename == "example.jpg":
            return Response(photo, mimetype="image/jpeg")
        return send_static_file(filename=filename)

    app.view_functions["static"] = static
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", app.extensions["maskserve"].keys
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    assert CHROMIUM is not None
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield browser
    browser.quit()


def console(browser: webdriver.Chrome) -> list[str]:
    """Errors and warnings since the last call, such as of the content security policy."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries]


class Page:
    """What a person does with the page and sees of it."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        console(browser)  # forgets what earlier tests left
        browser.get(url)
        self.wait_for(lambda: "Finds" in self.text("finds") or self.asks_for_key())

    def asks_for_key(self) -> bool:
        return self.element("key-form").is_displayed()

    def element(self, identifier: str) -> WebElement:
        return self.browser.find_element(By.ID, identifier)

    def text(self, identifier: str) -> str:
        return self.element(identifier).text

    def hidden_text(self, identifier: str) -> str:
        return self.element(identifier).get_attribute("textContent") or ""

    def rows(self) -> list[list[str]]:
        rows = self.browser.find_elements(By.CSS_SELECTOR, "#instances tbody tr")
        return [row.text.split() for row in rows]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        WebDriverWait(
            self.browser, WAIT_S, 0.05, ignored_exceptions=[StaleElementReferenceException]
        ).until(lambda _: condition())

    def wait_for_rows(self, count: int) -> None:
        self.wait_for(
            lambda: len(self.rows()) == count and not self.element("progress").is_displayed()
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()


@pytest.fixture
def page(browser: webdriver.Chrome, url: str) -> Page:
    return Page(browser, url)


def upload(page: Page, folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.write_bytes(data)
    page.element("file").send_keys(str(path))


def test_example_shows_percentages_and_instances(page: Page) -> None:
    page.element("example").click()
    page.wait_for_rows(2)
    masked, unmasked = page.text("masked"), page.text("unmasked")
    assert float(masked.rstrip("%")) + float(unmasked.rstrip("%")) == pytest.approx(100)
    assert [row[:2] for row in page.rows()] == [["balloon", "0.95"], ["kite", "0.80"]]
    assert masked in page.hidden_text("status")
    natural = page.browser.execute_script(
        "const i = document.getElementById('photo'); return [i.naturalWidth, i.naturalHeight]"
    )
    assert natural == [400, 300]
    assert console(page.browser) == []


def test_upload_and_slider(page: Page, tmp_path: Path, photo: bytes) -> None:
    upload(page, tmp_path, "garden.jpg", photo)
    page.wait_for_rows(2)
    assert "garden.jpg · 400 × 300" in page.text("caption")
    before = page.text("masked")
    page.element("score").send_keys(Keys.HOME)
    page.wait_for_rows(3)
    assert page.text("score-value") == "5%"
    assert float(page.text("masked").rstrip("%")) > float(before.rstrip("%"))
    page.element("score").send_keys(Keys.END)  # 0.99
    page.wait_for_rows(0)
    page.element("score").send_keys(*[Keys.ARROW_LEFT] * 10)
    page.wait_for_rows(1)


def test_nothing_found_is_said(page: Page, registry: FakeRegistry) -> None:
    page.element("example").click()
    page.wait_for_rows(2)
    page.element("score").send_keys(Keys.END)
    page.wait_for_rows(0)
    assert page.element("none").is_displayed()
    assert page.text("masked") == "0.00%"


def test_everything_by_keyboard(page: Page) -> None:
    page.press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB)  # brand, API, file, example
    assert page.browser.switch_to.active_element.get_attribute("id") == "example"
    page.press(Keys.ENTER)
    page.wait_for_rows(2)

    page.press(Keys.TAB, Keys.TAB)  # model, score
    assert page.browser.switch_to.active_element.get_attribute("id") == "score"
    page.press(Keys.HOME)
    page.wait_for_rows(3)

    page.press(Keys.TAB, Keys.ARROW_RIGHT)
    page.wait_for(lambda: "style=outline" in page.hidden_text("curl"))
    page.wait_for_rows(3)

    assert not page.browser.find_elements(By.CSS_SELECTOR, "#highlight path")
    page.press(Keys.TAB)
    assert "balloon" in page.browser.switch_to.active_element.text
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "#highlight path")) == 2
    outline = page.browser.execute_script(
        "return getComputedStyle(document.activeElement).outlineStyle"
    )
    assert outline == "solid"


def test_other_model(page: Page) -> None:
    page.element("example").click()
    page.wait_for_rows(2)
    page.element("model").send_keys("second")
    page.wait_for(lambda: "/v1/models/second/segment" in page.text("curl"))
    assert "second" in page.text("finds")


def test_downloads(page: Page, tmp_path: Path) -> None:
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    page.element("example").click()
    page.wait_for_rows(2)
    for identifier, name in (
        ("download-picture", "example-masked.jpg"),
        ("download-json", "example-masked.json"),
    ):
        page.element(identifier).click()
        page.wait_for((tmp_path / name).exists)
    answer = json.loads((tmp_path / "example-masked.json").read_bytes())
    assert f"{answer['coverage']['masked_percent']:.2f}%" == page.text("masked")
    assert "drawn_image" not in answer
    assert (tmp_path / "example-masked.jpg").read_bytes().startswith(b"\xff\xd8\xff")


def test_problem_is_shown_and_the_page_lives_on(page: Page, tmp_path: Path, photo: bytes) -> None:
    upload(page, tmp_path, "text.jpg", b"not a photo")
    page.wait_for(page.element("error").is_displayed)
    assert page.text("error-title") == "The photo cannot be decoded"
    assert "not an image" in page.text("error-detail")
    assert not page.element("result").is_displayed()
    upload(page, tmp_path, "garden.jpg", photo)
    page.wait_for_rows(2)
    assert not page.element("error").is_displayed()


def test_server_that_is_gone_is_said(page: Page) -> None:
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.element("example").click()
    page.wait_for_rows(2)
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        page.element("score").send_keys(Keys.HOME)
        page.wait_for(page.element("error").is_displayed)
        assert page.text("error-title") == "The server cannot be reached"
    finally:
        page.browser.execute_cdp_cmd(
            "Network.emulateNetworkConditions", offline | {"offline": False}
        )
    page.element("score").send_keys(Keys.END)
    page.wait_for_rows(0)


def test_page_waits_for_the_models(
    browser: webdriver.Chrome, url: str, registry: FakeRegistry
) -> None:
    registry.ready = False
    browser.get(url)
    finds = browser.find_element(By.ID, "finds")
    WebDriverWait(browser, WAIT_S).until(lambda _: "still loading" in finds.text)
    browser.find_element(By.ID, "example").click()
    registry.ready = True
    WebDriverWait(browser, WAIT_S).until(lambda _: "Finds: balloon, kite" in finds.text)
    masked = browser.find_element(By.ID, "masked")
    WebDriverWait(browser, WAIT_S).until(lambda _: "%" in masked.text)


def test_a_key_is_asked_for_and_kept_by_the_tab(
    browser: webdriver.Chrome, registry: FakeRegistry, photo: bytes
) -> None:
    key = "a-key-that-nobody-guesses"
    with serving(ServerSettings(api_keys=(SecretStr(key),)), registry, photo) as (url, _):
        page = Page(browser, url)
        assert page.asks_for_key()
        assert browser.switch_to.active_element.get_attribute("id") == "key"
        assert not page.element("key-wrong").is_displayed()
        page.element("example").click()  # a photo may be chosen first

        page.element("key").send_keys("short", Keys.ENTER)
        assert page.asks_for_key()  # the browser says what a key looks like
        page.element("key").clear()
        page.element("key").send_keys("not-a-key-of-this-server", Keys.ENTER)
        page.wait_for(page.element("key-wrong").is_displayed)
        assert page.element("key").get_attribute("value") == ""

        page.element("key").send_keys(f" {key} ", Keys.ENTER)  # as it is copied
        page.wait_for_rows(2)
        assert not page.asks_for_key()
        assert "Finds: balloon, kite" in page.text("finds")
        assert "$API_KEY" in page.hidden_text("curl")
        assert key not in browser.page_source
        assert browser.execute_script("return localStorage.length + document.cookie.length") == 0

        browser.refresh()
        page.wait_for(lambda: "Finds" in page.text("finds"))
        assert not page.asks_for_key()

        browser.switch_to.new_window("tab")
        browser.get(url)
        page.wait_for(page.asks_for_key)
        browser.close()
        browser.switch_to.window(browser.window_handles[0])


def test_a_key_that_is_withdrawn_is_asked_for_again(
    browser: webdriver.Chrome, registry: FakeRegistry, photo: bytes, tmp_path: Path
) -> None:
    old, new = "the-first-key-of-two", "the-second-key-of-two"
    file = tmp_path / "keys"
    file.write_text(f"{old}\n{new}")
    with serving(ServerSettings(api_keys_file=file), registry, photo) as (url, keys):
        page = Page(browser, url)
        page.wait_for(page.asks_for_key)
        page.element("key").send_keys(old, Keys.ENTER)
        page.wait_for(lambda: "Finds" in page.text("finds"))
        page.element("example").click()
        page.wait_for_rows(2)

        file.write_text(new)
        keys.reload()
        page.element("score").send_keys(Keys.HOME)
        page.wait_for(page.asks_for_key)
        assert page.element("key-wrong").is_displayed()
        page.element("score").send_keys(Keys.ARROW_RIGHT)  # replaces the request that waits
        page.element("key").send_keys(new, Keys.ENTER)
        page.wait_for_rows(3)
        assert not page.asks_for_key()


@pytest.mark.parametrize("width", [360, 1400])
def test_nothing_is_wider_than_the_window(page: Page, width: int) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    script = "return document.documentElement.scrollWidth"
    assert page.browser.execute_script(script) == width
    page.element("example").click()
    page.wait_for_rows(2)
    assert page.browser.execute_script(script) <= width
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("path", ["/", "/openapi/"])
def test_nothing_comes_from_elsewhere(browser: webdriver.Chrome, url: str, path: str) -> None:
    console(browser)  # forgets what earlier tests left
    browser.get(url + path)
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    expected = "app.js" if path == "/" else "openapi.json"
    WebDriverWait(browser, WAIT_S).until(
        lambda _: any(name.endswith(expected) for name in browser.execute_script(script))
    )
    assert all(name.startswith((url, "data:", "blob:")) for name in browser.execute_script(script))
    assert console(browser) == []


def test_api_page_lists_the_operations(browser: webdriver.Chrome, url: str) -> None:
    browser.get(f"{url}/openapi/")
    WebDriverWait(browser, WAIT_S).until(
        lambda _: "/v1/segment" in browser.find_element(By.ID, "swagger-ui").text
    )
