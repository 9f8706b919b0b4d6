"""Headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def program():
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One page of one browser process."""

    def __init__(self, folder):
        import websocket

        self.events = []
        self._count = 0
        self._process = subprocess.Popen(
            [program(), "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0",
             f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place, deadline = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (place.exists() and place.read_text().strip()):
            assert time.monotonic() < deadline, "Chromium does not start"
            time.sleep(0.02)
        port = place.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        self._socket = websocket.create_connection(
            target["webSocketDebuggerUrl"], suppress_origin=True, timeout=60)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Performance.enable", timeDomain="threadTicks")

    def send(self, method, **parameters):
        self._count += 1
        self._socket.send(json.dumps(
            {"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def open(self, path, width=1280, dark=False, height=900):
        """Load a page; return the seconds of computing that it took, whatever else runs here."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv()))
        metrics = {one["name"]: one["value"]
                   for one in self.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]

    def run(self, script):
        """Return the value of an expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code, text="\r" if key == "Enter" else "")

    def screenshot(self):
        """Return the visible part as the content of a PNG file."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def complaints(self):
        """Return errors, messages of the console, and requests for anything but the page."""
        bad = [event for event in self.events
               if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded",
                                      "Runtime.consoleAPICalled")]
        requested = [event["params"]["request"]["url"][:80] for event in self.events
                 if event["method"] == "Network.requestWillBeSent"]
        return bad + [url for url in requested[1:] if not url.startswith("data:")]

    def close(self):
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)
