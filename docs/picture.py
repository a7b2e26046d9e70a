"""Take a picture of a report page for the README: `make picture`.

    python docs/picture.py PAGE PICTURE [WIDTH] [HEIGHT] [light|dark]

WIDTH and HEIGHT are in CSS pixels; HEIGHT 0 takes the whole page. Needs chromium, chromedriver and selenium.
"""

import base64
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
COLOURS = 256  # of the picture's palette


def installed() -> tuple[str, str] | None:
    """Return the paths of the browser and its driver, or None where one is missing."""
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (binary, driver) if binary and driver else None


@contextmanager
def browser() -> Iterator[Any]:
    """Open headless Chromium with an empty profile; it keeps its console and network logs."""
    from selenium import webdriver

    places = installed()
    if places is None:
        raise SystemExit("no browser: install chromium and chromium-driver")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = places[0]
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(places[1]))
        try:
            yield driver
        finally:
            driver.quit()


def show(
    driver: Any, page: Path, width: int = 1440, height: int = 900, scheme: str = "light"
) -> None:
    """Open a page on a screen of `width` × `height` CSS pixels in a light or dark colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    driver.get(page.resolve().as_uri())


def picture(driver: Any, page: Path, width: int, height: int, scheme: str) -> bytes:
    """Return a page as PNG; the whole of it where `height` is 0."""
    show(driver, page, width, height or 900, scheme)
    height = height or driver.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    data = driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(COLOURS, method=Image.Quantize.MEDIANCUT).save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    page, target, *sizes = sys.argv[1:]
    width, height = (int(v) for v in (*sizes[:2], *("1440", "1620")[len(sizes[:2]) :]))
    with browser() as driver:
        content = picture(driver, Path(page), width, height, (sizes[2:] or ["light"])[0])
    Path(target).write_bytes(content)
    print(f"{target}: {width} px wide, {len(content) / 1000:.0f} kB")
