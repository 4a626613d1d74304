#!/usr/bin/env python3
"""Opens pages in headless Chromium and prints what is wrong with them, one finding per line.

browser.py [--screenshots DIR] PAGE...     exit code 0: no finding; 1: findings; 77: no Chromium here

Each page is loaded once and shown in several windows (WINDOWS). It must load nothing but itself and print nothing
on the console. In each window, it must draw every figure, and show every text: not cut, not overlapped by another text, and with
enough contrast to its background. The browser is driven over a pipe (--remote-debugging-pipe), so that only
Python's own library is needed.
"""

import argparse
import base64
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Name, width in pixels, medium, colour scheme. A sheet of A4 has 718 pixels between margins of 1
# cm.
WINDOWS = [
    *(
        (f"{width} px, {scheme}", width, "screen", scheme)
        for width, scheme in itertools.product((400, 1200, 1920), ("light", "dark"))
    ),
    ("print", 718, "print", "light"),
    ("print from dark mode", 718, "print", "dark"),
]

CHECKS = r"""
(medium) => {
  const found = [];
  const short = text => JSON.stringify(text.trim().replace(/\s+/g, ' ').slice(0, 60));
  const shown = r => r.width > 0 && r.height > 0;

  // ---- colours: contrast as WCAG 2.1 defines it ----
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext('2d', {willReadFrequently: true});
  const colours = new Map();
  const rgba = colour => {  // any CSS colour as [r, g, b, a]
    if (!colours.has(colour)) colours.set(colour, pixel(colour));
    return colours.get(colour);
  };
  const pixel = colour => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    const c = brush.getImageData(0, 0, 1, 1).data;
    return [c[0], c[1], c[2], c[3] / 255];
  };
  const over = (top, below, opacity) =>
    [0, 1, 2].map(i => below[i] + (top[i] - below[i]) * top[3] * opacity);
  const luminance = c => {
    const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const background = element => {  // browsers print no backgrounds
    const layers = [];
    if (medium !== 'print') {
      for (let e = element; e; e = e.parentElement) layers.unshift(rgba(getComputedStyle(e).backgroundColor));
    }
    return layers.reduce((below, layer) => over(layer, below, 1), [255, 255, 255]);
  };
  const opacity = element => {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= parseFloat(getComputedStyle(e).opacity);
    return product;
  };

  // ---- texts ----
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) {
    found.push(`the page is ${document.documentElement.scrollWidth} pixels wide`);
  }
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || element.closest('style, script, title, desc')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [...range.getClientRects()].filter(shown);
    const style = getComputedStyle(element);
    if (!boxes.length || style.visibility !== 'visible') {
      found.push(`text that is not shown: ${short(node.data)}`);
      continue;
    }
    // The nearest ancestor that clips. Where it scrolls on a screen, its content can be reached.
    let clip = {left: 0, right: width, top: -Infinity, bottom: Infinity}, clips = 'the page';
    for (let e = element; e && e !== document.body; e = e.parentElement) {
      const s = getComputedStyle(e);
      if (s.overflowX === 'visible' && s.overflowY === 'visible') continue;
      if (e.tagName === 'svg' || !/auto|scroll/.test(s.overflowX + s.overflowY) || medium === 'print') {
        clip = e.getBoundingClientRect(), clips = e.tagName;
        break;
      }
      clip = {left: -Infinity, right: Infinity, top: -Infinity, bottom: Infinity};
      break;
    }
    for (const b of boxes) {
      if (b.left < clip.left - 1 || b.right > clip.right + 1 ||
          b.top + 0.2 * b.height < clip.top - 1 || b.bottom - 0.2 * b.height > clip.bottom + 1) {
        found.push(`text cut by ${clips}: ${short(node.data)}`);
        break;
      }
    }
    const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
    const below = background(element);
    const ratio = contrast(over(ink, below, opacity(element)), below);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.6 && parseInt(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      found.push(`contrast ${ratio.toFixed(2)} of the text ${short(node.data)}`);
    }
    // Boxes of fonts are higher than their letters.
    for (const b of boxes) {
      const dx = 0.5, turned = b.height > 2 * b.width && node.data.trim().length > 2;
      const dy = turned ? 0.5 : 0.2 * b.height, sx = turned ? 0.2 * b.width : dx;
      texts.push({node, text: node.data,
                  left: b.left + sx, right: b.right - sx, top: b.top + dy, bottom: b.bottom - dy});
    }
  }
  texts.sort((a, b) => a.top - b.top);
  for (let i = 0; i < texts.length; ++i) {
    for (let j = i + 1; j < texts.length && texts[j].top < texts[i].bottom; ++j) {
      const a = texts[i], b = texts[j];
      if (a.node !== b.node && a.left < b.right && b.left < a.right) {
        found.push(`texts overlap: ${short(a.text)} and ${short(b.text)}`);
      }
    }
  }

  // ---- figures: every <svg> draws something that can be seen ----
  const drawings = [...document.querySelectorAll('svg')].filter(s => !s.ownerSVGElement);
  for (const svg of drawings) {
    const where = svg.querySelector('title')?.textContent || svg.parentElement.textContent || 'without a name';
    const box = svg.getBoundingClientRect();
    if (!shown(box)) found.push(`a figure is not shown: ${short(where)}`);
    const below = background(svg.parentElement);
    let marks = 0;
    for (const mark of svg.querySelectorAll('path, rect, circle, line, polyline')) {
      if (mark.closest('.axis, .grid, defs')) continue;
      const b = mark.getBoundingClientRect(), s = getComputedStyle(mark);
      if (b.width + b.height <= 0 || b.right < box.left || b.left > box.right || b.bottom < box.top ||
          b.top > box.bottom) continue;
      // Lines and areas that are faint on purpose stand beside strong ones. Points have a rim of the page's colour.
      const inks = [];
      if (b.width > 0 && b.height > 0) inks.push([s.fill, s.fillOpacity]);  // a straight line has no area
      if (!mark.closest('.points')) inks.push([s.stroke, s.strokeOpacity]);
      for (const [paint, strength] of inks) {
        if (paint === 'none' || parseFloat(strength) === 0) continue;
        ++marks;
        const ratio = contrast(over(rgba(paint), below, opacity(mark)), below);
        if (ratio < 3) found.push(`contrast ${ratio.toFixed(2)} of a mark ${paint} in ${short(where)}`);
      }
    }
    if (!marks) found.push(`a figure draws nothing: ${short(where)}`);
    // Each panel has marks of its own, inside the <svg> that clips them.
    for (const panel of svg.querySelectorAll('svg')) {
      const drawn = [...panel.querySelectorAll('path, rect, circle, line')].some(mark => {
        const b = mark.getBBox();
        return b.width + b.height > 0 || mark.getTotalLength() > 0;
      });
      if (!drawn) found.push(`an empty panel in ${short(where)}`);
    }
  }
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) found.push(`a picture is not shown: ${short(image.alt || image.src)}`);
  }
  if (document.querySelectorAll('figure').length && !drawings.length && !document.images.length) {
    found.push('no figure');
  }
  return {found: [...new Set(found)], figures: drawings.filter(s => s.closest('figure')).length,
          texts: texts.length, height: Math.ceil(document.documentElement.scrollHeight)};
}
"""


class Browser:
    """Headless Chromium, over the pipe of its DevTools protocol: messages in JSON, each ended by a zero byte."""

    def __init__(self, program, profile):
        ours, theirs_out = os.pipe()
        theirs_in, self.to = os.pipe()
        self.source, self.rest, self.events, self.last = ours, b"", [], 0

        def descriptors():  # it reads 3 and writes 4
            low_in, low_out = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(low_in, 3)
            os.dup2(low_out, 4)

        self.process = subprocess.Popen(
            [
                program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-sandbox",
                "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
                "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=descriptors,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)

    def receive(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.source], [], [], left)[0]:
                raise TimeoutError(f"the browser said nothing for {seconds} s")
            got = os.read(self.source, 1 << 16)
            if not got:
                raise EOFError("the browser ended")
            self.rest += got
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, seconds=120, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data) :]
        while True:
            answer = self.receive(seconds)
            if answer.get("id") == self.last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method, seconds=120):
        for event in self.events:
            if event.get("method") == method:
                return
        while True:
            event = self.receive(seconds)
            self.events.append(event)
            if event.get("method") == method:
                return

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def chromium():
    """The first browser that runs: Ubuntu's chromium-browser without its snap is a script that does not."""
    named = os.environ.get("KSHOT_TEST_BROWSER")
    for name in (named,) if named else NAMES:
        path = shutil.which(name)
        if not path:
            continue
        try:
            version = subprocess.run([path, "--version"], capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if version.returncode == 0:
            return path
    return None


def what_it_said(events, page):
    """Console messages, exceptions and requests for anything but the page, each once."""
    return list(dict.fromkeys(messages(events, page)))


def messages(events, page):
    for event in events:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            yield "console: " + " ".join(str(a.get("value", a.get("description"))) for a in about["args"])
        elif method == "Runtime.exceptionThrown":
            yield "exception: " + about["exceptionDetails"]["text"]
        elif method == "Log.entryAdded":
            yield f"console, {about['entry']['level']}: {about['entry']['text']}"
        elif method == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if url.split("#")[0] != page and not url.startswith("data:"):
                yield f"loads {url}"


def open_tab(browser):
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.call(f"{domain}.enable", session)
    return session


def load(browser, session, page):
    """Loads the page and opens all of its sections. Returns what the page said and loaded meanwhile."""
    browser.events.clear()
    url = page.resolve().as_uri()
    browser.call("Page.navigate", session, url=url)
    browser.wait_for("Page.loadEventFired")
    opened = "document.querySelectorAll('details').forEach(d => d.open = true); document.fonts.ready"
    browser.call("Runtime.evaluate", session, expression=opened, awaitPromise=True)
    return what_it_said(browser.events, url)


def examine(browser, session, page, window, screenshot):
    """Shows the loaded page in a window of another size, medium and colour scheme, and checks it."""
    _, width, medium, scheme = window
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.call("Emulation.setDeviceMetricsOverride", session, **size)
    browser.call(
        "Emulation.setEmulatedMedia", session, media=medium,
        features=[{"name": "prefers-color-scheme", "value": scheme}],
    )  # fmt: skip
    browser.events.clear()
    answer = browser.call(
        "Runtime.evaluate", session, expression=f"({CHECKS})({json.dumps(medium)})", returnByValue=True
    )
    if "exceptionDetails" in answer:
        raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
    seen = answer["result"]["value"]
    if screenshot:
        clip = {"x": 0, "y": 0, "width": width, "height": min(seen["height"], 12000), "scale": 1}
        picture = browser.call("Page.captureScreenshot", session, clip=clip, captureBeyondViewport=True)
        screenshot.write_bytes(base64.b64decode(picture["data"]))
    return seen, what_it_said(browser.events, page.resolve().as_uri()) + seen["found"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE")
    parser.add_argument("--screenshots", type=pathlib.Path, metavar="DIR", help="where to keep a picture of each window")
    arguments = parser.parse_args()
    program = chromium()
    if not program:
        print(f"no browser here: none of {', '.join(NAMES)} runs (KSHOT_TEST_BROWSER names another)")
        return 77
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    wrong = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            session = open_tab(browser)
            for number, page in enumerate(arguments.pages):
                said = load(browser, session, page)
                for window in WINDOWS:
                    picture = None
                    if arguments.screenshots:
                        name = window[0].replace(" ", "_").replace(",", "")
                        picture = arguments.screenshots / f"{number}_{page.stem}_{name}.png"
                    seen, findings = examine(browser, session, page, window, picture)
                    print(f"{page}, {window[0]}: {seen['figures']} figures, {seen['texts']} texts")
                    for finding in said + findings:
                        wrong = True
                        print(f"{page}, {window[0]}: {finding}")
        finally:
            browser.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
