"""Measure a page of `tl-export --html` in headless Chromium, and save screenshots.

    python scripts/documentation/show_page.py PAGE.html [--pictures FOLDER] [--tabs type inside]

Prints the size of the file, the time until the page is ready, and the time for each word that is typed, with the
processor time of the page's thread, which other work on the machine does not change much. The pictures show the page
1280 and 390 pixels wide, in light and dark colors. The exit code is 1 if the page wrote an error to the console.
"""

import argparse
import base64
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

TEXT = "the people of the united states have a right to expect that their government will serve them well ."
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
COLORS = 64


class Browser:
    """Chromium with one page, controlled over a pipe by the DevTools protocol."""

    def __init__(self, profile: str) -> None:
        browser = shutil.which("chromium") or shutil.which("google-chrome")
        assert browser is not None, "needs chromium"
        read, their_write = os.pipe()
        their_read, write = os.pipe()
        # The browser reads from 3 and writes to 4.
        flags = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={profile}"
        command = f"exec {browser} {flags} 3<&{their_read} 4>&{their_write}"
        self._process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(their_read, their_write), stderr=subprocess.DEVNULL
        )
        self._read, self._write = os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self._number = 0
        self.errors: list[str] = []
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.call("Runtime.enable")
        self.call("Log.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while True:
            answer = bytearray()
            while (byte := self._read.read(1)) != b"\0":
                assert byte, "the browser has ended"
                answer += byte
            found = json.loads(answer)
            event = found.get("params", {})
            if found.get("method") == "Runtime.exceptionThrown" or "error" in (
                event.get("type"),
                event.get("entry", {}).get("level"),
            ):
                self.errors.append(json.dumps(event)[:500])
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]

    def value(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="file, or URL of tl-serve")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    parser.add_argument("--tabs", nargs="+", default=["type"])
    parser.add_argument("--text", help="text to show")
    arguments = parser.parse_args()
    is_url = arguments.page.startswith("http")
    url = arguments.page if is_url else Path(arguments.page).resolve().as_uri()
    name = "served" if is_url else Path(arguments.page).stem
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        measure(browser, url, name)
        if arguments.pictures:
            take_pictures(browser, name, arguments)
        browser.close()
    print(f"{len(browser.errors)} errors on the console", *browser.errors, sep="\n")
    sys.exit(bool(browser.errors))


def measure(browser: Browser, url: str, name: str) -> None:
    browser.call("Performance.enable", timeDomain="threadTicks")
    browser.call("Page.navigate", url=url)
    browser.value(
        "new Promise((done) => { const look = () => typeof ready === 'undefined' ? setTimeout(look, 20)"
        " : ready.then(() => done()); look(); })"
    )
    opened, computed = browser.value("performance.now()") / 1000, busy(browser)
    times = browser.value(
        f"(async () => {{ const times = []; page.text.value = ''; for (const word of {json.dumps(TEXT.split())}) {{"
        " const begin = performance.now(); page.text.value += word + ' '; page.typed(); await page.settled;"
        " document.body.offsetHeight; times.push(performance.now() - begin); } return times; })()"
    )
    size = "" if url.startswith("http") else f"{Path(url.removeprefix('file://')).stat().st_size / 1e6:.1f} MB, "
    per_word = (busy(browser) - computed) / len(TEXT.split()) * 1000
    print(
        f"{name}: {size}ready after {opened:.2f} s ({computed:.2f} s of processor time), "
        f"{statistics.median(times):.1f} ms per word ({per_word:.1f} ms)"
    )


def busy(browser: Browser) -> float:
    """Return the processor time in seconds of the page's thread."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


def take_pictures(browser: Browser, name: str, arguments: argparse.Namespace) -> None:
    if arguments.text:
        browser.value(f"(page.text.value = {json.dumps(arguments.text)}, page.typed(), page.settled)")
    for tab in arguments.tabs:
        browser.value(f"(document.getElementById('tab-{tab}').click(), page.settled)")
        for device, (width, height) in SIZES.items():
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            needed = browser.value("document.documentElement.scrollWidth")
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                browser.call("Emulation.setEmulatedMedia", features=features)
                picture = browser.call("Page.captureScreenshot", format="png")["data"]
                path = arguments.pictures / f"page-{name}-{tab}-{device}-{scheme}.png"
                image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
                image.quantize(COLORS).save(path, optimize=True)
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB, page {needed} px wide in {width}")


if __name__ == "__main__":
    main()
