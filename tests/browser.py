"""A page as a browser shows it: headless Chromium, where it is installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# The page in frames of the widths asked for: a window cannot be as narrow as a phone.
PROBE = """<!doctype html><html><body><script>
const told = {frames: {}};
let left = WIDTHS.length;
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 800px`;
  frame.onload = () => {
    const page = frame.contentDocument, images = [...page.images];
    told.frames[width] = {
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      images: images.length,
      broken: images.filter(image => !(image.complete && image.naturalWidth)).length,
    };
    if (--left == 0) document.title = JSON.stringify(told);
  };
  frame.src = "PAGE";
  document.body.append(frame);
}
</script></body></html>
"""


class Shown(NamedTuple):
    """What a browser tells of a page in a window of some width."""

    overflow: int
    """CSS pixels that the page is wider than its window."""
    images: int
    broken: int
    """Images that did not load."""


def shown(page: Path, folder: Path, widths: tuple[int, ...]) -> tuple[dict[int, Shown], list[str]]:
    """The page at each width, and the lines that it wrote to the console. Skips where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome is installed")
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("WIDTHS", json.dumps(widths)).replace("PAGE", page.resolve().as_uri()))
    done = subprocess.run(
        [
            CHROMIUM,
            *(
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--allow-file-access-from-files",
            ),
            *("--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={folder / 'browser'}"),
            *("--virtual-time-budget=20000", "--dump-dom", probe.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, f"the page did not load: {done.stderr[-500:]}"
    found = json.loads(title[1])
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return {int(width): Shown(**told) for width, told in found["frames"].items()}, console
