"""README's picture, taken from a real page: `python -m tests.bench.picture WORKSPACE RUN LAYER`.

Needs Chromium and Playwright, as the tests of the pages do. For the picture in the repository, whose photos the product
generated itself:

    dissect demo --workspace w
    dissect run demo --layer conv5 --data w/cache/synthetic-500-128px --null 200 --name demo-null --workspace w
    python -m tests.bench.picture w demo-null conv5
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import FLAGS

SIZE = {"width": 1120, "height": 1260}
OUT = Path(__file__).resolve().parents[2] / "report.webp"


def main() -> None:
    workspace, run, layer = sys.argv[1:]
    (page,) = (Path(workspace).resolve() / "reports" / run / "layers").glob(f"*-{layer}/index.html")
    program = os.environ.get("DISSECT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=FLAGS)
        view = browser.new_context(viewport=SIZE, device_scale_factor=1.5, offline=True).new_page()  # type: ignore[arg-type]
        view.goto(f"file://{page}#sort=iou")
        view.wait_for_selector("#rows .strip")
        view.wait_for_timeout(500)
        taken = view.screenshot()
        browser.close()
    Image.open(io.BytesIO(taken)).convert("RGB").save(OUT, "WEBP", quality=80, method=6)
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
