"""The page in headless Chromium, at the width of a desk and of a telephone, against what the models say."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_models import CLASSES, encoded, photograph, served

pytest.importorskip("gradio", reason="the extra serve is not installed")
pytest.importorskip("fastapi_offline", reason="the extra serve is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

import uvicorn
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from nonlocalseg.serving.answer import Answer, answers_of
from nonlocalseg.serving.desk import Desk
from nonlocalseg.serving.endpoint import create_app
from nonlocalseg.serving.limits import Limits
from nonlocalseg.serving.line import Progress
from nonlocalseg.serving.page import add_page
from nonlocalseg.serving.server import listen

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)

IMAGE = photograph(64, 96)
SWITCHES = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
PATIENCE = 120
BRIEF = 0.05


@pytest.fixture(scope="module")
def site() -> Iterator[SimpleNamespace]:
    desk = Desk([served("first"), served("second", "fcn")], Limits(max_megabytes=0.3, max_megapixels=0.5, queue=2))
    app = add_page(create_app(desk), desk)
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started)
        answers = answers_of(desk.models, IMAGE, Progress())
        yield SimpleNamespace(desk=desk, address=f"http://127.0.0.1:{listening.getsockname()[1]}", answers=answers)
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module", params=[1200, 390])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options, width = webdriver.ChromeOptions(), request.param
    options.binary_location = CHROMIUM
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    opened.set_script_timeout(PATIENCE)
    size = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield opened
    opened.quit()


def until(true: Callable[[], Any]) -> Any:
    """What `true` gives, once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(BRIEF)
    raise AssertionError("it never came true")


class Page:
    """The page, opened anew, and what tests do with it."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser = browser
        browser.get(address)
        until(lambda: self.all(".examples button"))

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, f".nls {selector}")

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def text(self, selector: str) -> str:
        return " ".join(self.one(selector).text.split())

    def js(self, code: str, *arguments: object) -> Any:
        return self.browser.execute_script(f"const root = document.querySelector('.nls'); {code}", *arguments)

    def state(self) -> str:
        return self.js("return root.dataset.state")

    def ended(self) -> str:
        return until(lambda: (found := self.state()) in ("done", "failed", "cancelled") and found)

    def give(self, path: Path) -> str:
        """A file, as if chosen; how that ended."""
        self.js("root.dataset.state = 'empty'")
        self.one(".file").send_keys(str(path))
        return self.ended()

    def set(self, selector: str, value: float) -> None:
        code = "const node = root.querySelector(arguments[0]); node.value = arguments[1];"
        self.js(code + "node.dispatchEvent(new Event('input', {bubbles: true}))", selector, value)
        self.settle()

    def settle(self) -> None:
        """Until what was changed is painted."""
        self.browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def pixels(self) -> np.ndarray:
        """What the canvas shows, [H, W, 3]."""
        self.settle()
        found = self.js(
            "const c = root.querySelector('.picture'); return [c.width, c.height, "
            "Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
        )
        return np.array(found[2], np.uint8).reshape(found[1], found[0], 4)[..., :3]

    def point(self, x: int, y: int) -> ActionChains:
        """The mouse over the middle of a pixel of the canvas."""
        canvas = self.one(".picture")
        self.js("root.querySelector('.picture').scrollIntoView({block: 'center'})")
        scale = canvas.rect["width"] / int(canvas.get_attribute("width"))
        middle = canvas.rect["width"] / 2, canvas.rect["height"] / 2
        offset = round((x + 0.5) * scale - middle[0]), round((y + 0.5) * scale - middle[1])
        return ActionChains(self.browser).move_to_element_with_offset(canvas, *offset)

    def explained(self) -> str:
        return until(
            lambda: self.js("const s = root.querySelector('.explained').dataset.state; return s != 'busy' && s")
        )


@pytest.fixture
def page(browser: webdriver.Chrome, site: SimpleNamespace) -> Page:
    return Page(browser, site.address)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "my photo.png"
    path.write_bytes(encoded(IMAGE))
    return path


def said(answer: Answer, x: int, y: int) -> str:
    return f"{CLASSES[answer.mask[y, x]]}, {int(100 * int(answer.probability[y, x]) / 255 + 0.5)} %"


def coloured(answer: Answer) -> np.ndarray:
    return np.array(answer.served.palette, np.uint8)[answer.mask]


def test_a_photograph_is_labelled(page: Page, photo: Path, site: SimpleNamespace) -> None:
    page.browser.get_log("performance")
    page.browser.get_log("browser")
    page.browser.get(site.address)
    until(lambda: page.all(".examples button"))
    assert page.give(photo) == "done"
    first, second = site.answers
    share = first.shares()[0]
    assert page.text(".words").startswith(f"my photo.png: {share.name} {100 * share.share:.1f} %")
    rows = [row.text.split("\n") for row in page.all(".legend tbody tr")]
    assert len(rows) == len(CLASSES)
    for row in page.all(".legend tbody tr"):
        name = row.find_element(By.CSS_SELECTOR, "th").text
        cells = [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "td")]
        shares = [{s.name: s.share for s in answer.shares()}.get(name) for answer in (first, second)]
        assert cells == ["–" if s is None else f"{100 * s:.1f} %" if s >= 0.001 else "< 0.1 %" for s in shares]
    x, y = 70, 20
    page.point(x, y).perform()
    assert page.text(".pointer") == f"x {x}, y {y}: first: {said(first, x, y)}; second: {said(second, x, y)}"
    wide, shown = page.js("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= shown  # nothing is cut off
    asked = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    addresses = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    inside = (site.address, "data:", "blob:", "chrome:")
    assert len(addresses) > 5
    assert [one for one in addresses if not one.startswith(inside)] == []
    assert [entry["message"] for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_the_picture_shows(page: Page, photo: Path, site: SimpleNamespace) -> None:
    assert page.give(photo) == "done"
    first, second = site.answers
    page.set(".split", 100)
    page.set(".opacity", 100)
    shown = slice(0, 94)  # the line between the models lies in the last columns
    np.testing.assert_array_equal(page.pixels()[:, shown], coloured(first)[:, shown])
    page.set(".split", 0)
    np.testing.assert_array_equal(page.pixels()[:, 2:], coloured(second)[:, 2:])
    page.set(".split", 50)
    both = page.pixels()
    np.testing.assert_array_equal(both[:, :46], coloured(first)[:, :46])
    np.testing.assert_array_equal(both[:, 50:], coloured(second)[:, 50:])
    page.set(".split", 100)
    page.set(".opacity", 0)
    plain = page.pixels()
    page.set(".opacity", 100)
    most = first.shares()[0]
    page.js("[...root.querySelectorAll('.legend input')].find((b) => b.value === arguments[0]).click()", most.name)
    off = (first.mask == most.number)[:, shown]
    np.testing.assert_array_equal(page.pixels()[:, shown][off], plain[:, shown][off])
    np.testing.assert_array_equal(page.pixels()[:, shown][~off], coloured(first)[:, shown][~off])
    page.one(".none").click()
    np.testing.assert_array_equal(page.pixels(), plain)
    page.one(".all").click()
    np.testing.assert_array_equal(page.pixels()[:, shown], coloured(first)[:, shown])
    page.set(".below", 50)
    page.one(".uncertain").click()
    striped = (page.pixels() != coloured(first)).any(-1)[:, shown]
    np.testing.assert_array_equal(striped, (first.probability < 127.5)[:, shown])


def test_a_click_shows_what_a_pixel_attends_to(page: Page, photo: Path) -> None:
    assert page.give(photo) == "done"
    page.point(30, 40).click().perform()
    assert page.explained() == "done"
    assert page.text(".explained h2") == "What x 30, y 40 attends to"
    assert len(page.all(".explained figure img")) == 2
    assert [len(f.find_elements(By.CSS_SELECTOR, "li")) for f in page.all(".explained figure")] == [5, 5]
    assert page.text(".explained .reason") == "second has no block whose attention could be shown."
    assert all(page.js("return arguments[0].naturalWidth", image) > 300 for image in page.all(".explained img"))


def test_the_keyboard_alone(page: Page, photo: Path, site: SimpleNamespace) -> None:
    assert page.give(photo) == "done"
    canvas = page.one(".picture")
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.text(".pointer").startswith(f"x 50, y 31: first: {said(site.answers[0], 50, 31)};")
    canvas.send_keys(Keys.ENTER)
    assert page.explained() == "done"
    assert page.text(".explained h2") == "What x 50, y 31 attends to"
    reached = set()
    page.js("document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(60):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        reached.add(page.js("const e = document.activeElement; return e.closest('.nls') ? e.className || e.type : ''"))
    assert {"theme", "button camera", "picture", "opacity", "split", "uncertain", "below", "checkbox"} <= reached
    assert {"button", "button all", "button none", "button primary"} <= reached


def test_downloads(page: Page, photo: Path, site: SimpleNamespace, tmp_path: Path) -> None:
    assert page.give(photo) == "done"
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.set(".opacity", 0)
    names = ["mask.png", "overlay.png", "probabilities.npz", "shares.csv"]
    for model, answer in zip(("first", "second"), site.answers, strict=True):
        for name in names:
            number = 4 * (model == "second") + names.index(name)
            page.js("root.querySelectorAll('.downloads a')[arguments[0]].click()", number)
            until((tmp_path / f"my photo-{model}-{name}").is_file)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / f"my photo-{model}-mask.png")), answer.mask)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / f"my photo-{model}-overlay.png")), IMAGE)
        best = np.load(tmp_path / f"my photo-{model}-probabilities.npz")["probabilities"].argmax(0)
        assert (best == answer.mask).mean() > 0.999
        assert (tmp_path / f"my photo-{model}-shares.csv").read_text().startswith("class,pixels")


def test_errors(page: Page, photo: Path, tmp_path: Path, site: SimpleNamespace) -> None:
    cases = {
        "notes.txt": (b"hello", "notes.txt: not an image"),
        "large.png": (b"x" * 300_001, "large.png has more than 0.3 megabytes"),
        "many.png": (encoded(np.zeros((800, 700, 3), np.uint8)), "700x800 pixels, more than 0.5 million"),
        "small.png": (encoded(photograph(8, 40)), "at least 16x16 pixels"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        assert page.give(tmp_path / name) == "failed"
        assert words in page.text("> .error")
        assert page.one("> .error").is_displayed()
    jobs = [site.desk.line.enter() for _ in range(2)]
    assert page.give(photo) == "failed"
    assert page.text("> .error").startswith("busy: 2 requests are in line")
    for job in jobs:
        job.leave()
    assert page.give(photo) == "done"
    assert not page.one("> .error").is_displayed()
    page.js(
        "const real = fetch; window.fetch = () => Promise.reject(new TypeError()); window.restore = () => window.fetch = real"
    )
    assert page.give(photo) == "failed"
    assert "The server does not answer" in page.text("> .error")


def test_cancelling(page: Page, photo: Path, site: SimpleNamespace) -> None:
    go, blocking = threading.Event(), site.desk.line.enter()
    blocking.start(lambda job: go.wait(PATIENCE))
    try:
        page.one(".file").send_keys(str(photo))
        until(lambda: page.text(".words").startswith("Waiting in line"))
        assert page.one("progress").is_displayed()
        page.one(".cancel").click()
        assert page.ended() == "cancelled"
        until(lambda: site.desk.line.taken == 1)
        assert not page.one(".cancel").is_displayed()
    finally:
        go.set()
    assert page.give(photo) == "done"


def test_every_way_in(page: Page) -> None:
    with urllib.request.urlopen(page.browser.current_url + "page/examples/2.png") as answer:
        assert Image.open(io.BytesIO(answer.read())).size == (320, 192)
    page.all(".examples button")[2].click()
    assert page.ended() == "done"
    assert page.text(".words").startswith("scene-3.png")
    for kind, carrier in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.js(
            """root.dataset.state = "empty";
            const bytes = Uint8Array.from(atob(arguments[2]), (c) => c.charCodeAt(0)), data = new DataTransfer();
            data.items.add(new File([bytes], `${arguments[0]}.png`, {type: "image/png"}));
            const Kind = arguments[0] === "paste" ? ClipboardEvent : DragEvent;
            root.dispatchEvent(new Kind(arguments[0], {[arguments[1]]: data, bubbles: true, cancelable: true}))""",
            kind,
            carrier,
            base64.b64encode(encoded(IMAGE)).decode(),
        )
        assert page.ended() == "done"
        assert page.text(".words").startswith(f"{kind}.png")
    page.one(".camera").click()
    until(lambda: page.js("return root.querySelector('video').videoWidth > 100"))
    page.js("root.dataset.state = 'empty'")
    page.one(".take").click()
    assert page.ended() in ("done", "failed")  # a noisy camera's PNG may be larger than this server takes
    assert not page.one(".booth").is_displayed()


def test_light_and_dark(page: Page) -> None:
    colours = []
    for _ in range(2):
        page.one(".theme").click()
        colours.append(
            page.js("return [getComputedStyle(document.body).backgroundColor, getComputedStyle(root).color]")
        )
    assert len({tuple(pair) for pair in colours}) == 2
