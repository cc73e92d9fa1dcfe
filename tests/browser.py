"""A real browser for tests: Chromium, spoken to in its DevTools protocol."""

import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu",
         "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
         "--disable-extensions")


WORST_CONTRAST = """(() => {
  const read = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
  const behind = node => {
    const [r, g, b, a = 1] = read(getComputedStyle(node).backgroundColor);
    return a > 0 || !node.parentElement ? [r, g, b] : behind(node.parentElement);
  };
  const light = rgb => rgb.slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    if (!node.getClientRects().length || node.closest("script, noscript, option")) continue;
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (own) found.push([ratio(read(getComputedStyle(node).color), behind(node)), node.outerHTML.slice(0, 80)]);
    const after = getComputedStyle(node, "::after");
    if (after.content.startsWith('"') && after.content !== '""') {
      found.push([ratio(read(after.color), behind(node)), node.outerHTML.slice(0, 80)]);
    }
  }
  return found.sort((a, b) => a[0] - b[0])[0];
})()"""
"""JavaScript: the lowest contrast of a text with what is behind it, and where."""


class Browser:
    """Chromium, spoken to in its DevTools protocol."""

    def __init__(self, folder: Path):
        assert CHROMIUM
        self._process = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self._socket = connect(self._endpoint(folder / "DevToolsActivePort"), max_size=None, proxy=None)

    def _endpoint(self, file: Path) -> str:
        for _ in range(600):
            lines = file.read_text().splitlines() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            assert self._process.poll() is None, f"Chromium ended with {self._process.returncode}"
            time.sleep(0.1)
        raise TimeoutError("Chromium does not listen")

    def call(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while (answer := json.loads(self._socket.recv(timeout=60))).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def close(self) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()


class Tab:
    """A tab with a storage of its own."""

    def __init__(self, browser: Browser, url: str):
        self._browser, self.url = browser, url
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.refusals: set[int] = set()
        """Statuses above 399 that the test means to see; 0 is a request that fails."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.size(1000, 900)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def open(self, path: str = "/") -> None:
        """Shows a page below the tab's URL."""
        self.call("Page.navigate", url=f"{self.url}{path}")
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        ends = time.monotonic() + 20
        while not self.run(expression):
            assert time.monotonic() < ends, f"{expression} stays false on\n{self.text('body')}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What is visible of the first element; nothing where there is none."""
        return self.run(f"(node => node?.checkVisibility() ? node.innerText : '')({found(selector)})")

    def texts(self, selector: str) -> list[str]:
        """What all elements hold."""
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(node => node.textContent)")

    def says(self, selector: str, part: str) -> None:
        """Waits until the element shows `part`."""
        self.wait(f"{found(selector)}?.checkVisibility() && {found(selector)}.innerText.includes({json.dumps(part)})")

    def type(self, selector: str, text: str) -> None:
        self.run(f"{found(selector)}.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, control: bool = False) -> None:
        code = {"Enter": 13, "Tab": 9}[key]
        text = {"text": "\r"} if key == "Enter" and not control else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                      modifiers=2 * control, **(text if kind == "keyDown" else {}))

    def click(self, selector: str) -> None:
        x, y = self.run(f"""(() => {{
            const node = {found(selector)};
            node.scrollIntoView({{ block: "center" }});
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def scheme(self, name: str) -> None:
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def complaints(self) -> list[str]:
        """Errors of the page, and requests that should not have been made or should not have failed."""
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            kind, told = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown" or (
                    kind == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert")) or (
                    kind == "Log.entryAdded" and told["entry"]["level"] == "error"
                    and told["entry"]["source"] != "network"):
                found.append(str(told))
            if kind == "Network.responseReceived" and told["response"]["status"] >= 400:
                if told["response"]["status"] not in self.refusals:
                    found.append(f"{told['response']['status']} {told['response']['url']}")
            elif kind == "Network.loadingFailed" and not told.get("canceled") and 0 not in self.refusals:
                found.append(str(told))
            elif kind == "Network.requestWillBeSent" and not told["request"]["url"].startswith(
                    (self.url, "data:")):
                found.append(f"a request to {told['request']['url']}")
        return found

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self.context)


def found(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)})"


def overflow(tab: Tab) -> int:
    """Pixels by which the page is wider than the window."""
    return tab.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
