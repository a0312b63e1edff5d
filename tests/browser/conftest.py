"""Reports of small real runs of every domain, and a chromium without a window that opens them from the disk."""

from __future__ import annotations

import base64
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from subshot.data.digits import write_digits
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch import correlate, retrain, search
from subshot.launch.config import to_json
from subshot.launch.presets import PRESETS
from subshot.launch.report import write_comparison, write_report
from subshot.train.run_dir import RunDir, write_json

SEARCH = ["--evolution.budget=60", "--evolution.population=12", "--evolution.sample=4", "--evolution.children=6"]
IMAGES = ["digits", "--space.width=0.125", "--warmup.recipe.epochs=4", "--limits.max-macs=1.5e6", *SEARCH]
FREE = ["nasbench201-cifar10", "--data=digits", "--space.input-size=8", "--score.batch-size=4", "--score.population=8"]
CLICKS = [
    "nasrec-full-criteo",
    "--data=prepared",
    "--space.max-dense-dim=64",
    "--space.max-sparse-dim=32",
    "--warmup.fraction=0.5",
    "--warmup.recipe.learning-rate=0.05",
    "--batches.batch-size=66",
    "--batches.num-shards=6",
    "--score.population=8",
    "--retrain.layer-norm",
    "--retrain.top=2",
    "--retrain.controls=1",
    "--retrain.seeds=2",
    "--retrain.learning-rates=0.05",
    *SEARCH,
]
BASELINES = ["--retrain.baselines", "logistic_regression", "dlrm"]


WHOLE = "return location.href == arguments[0] && document.readyState == 'complete' && !!document.querySelector('main')"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", type=Path, help="a folder for what the browser showed")


@dataclass
class Browser:
    """One chromium. Sizes are CSS pixels."""

    driver: Any
    pictures: Path | None

    def open(self, page: Path, width: int, scheme: str = "light", media: str = "screen") -> None:
        """Loads a page from the disk as a screen of that width, or paper, shows it, and starts to listen."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.driver.get(page.as_uri())
        end = time.monotonic() + 60  # on a busy machine the page may come after `get` has returned
        while not self.ask(WHOLE, page.as_uri()):
            assert time.monotonic() < end, f"{page} was not loaded"
            time.sleep(0.05)

    def unfold(self) -> None:
        self.driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")

    def ask(self, script: str, *words: str) -> Any:
        return self.driver.execute_script(script, *words)

    def complaints(self) -> list[str]:
        """What the console says."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Every address that the page asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def printed(self) -> bytes:
        """The page as a PDF on A4. Chromium's printing process failed by itself once on a page that it then printed 20
        times, so it may fail once."""
        from selenium.common.exceptions import WebDriverException  # where it is missing, the tests are skipped

        paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
        try:
            found = self.driver.execute_cdp_cmd("Page.printToPDF", paper)
        except WebDriverException as error:
            if "Printing failed" not in str(error):
                raise
            found = self.driver.execute_cdp_cmd("Page.printToPDF", paper)
        return base64.b64decode(found["data"])

    def picture(self, name: str) -> None:
        """The whole page, cut into pieces of 2,400 pixels, where a folder for them was named."""
        if self.pictures is None:
            return
        self.pictures.mkdir(parents=True, exist_ok=True)
        width, height = self.ask("return [innerWidth, document.documentElement.scrollHeight]")
        for number, top in enumerate(range(0, height, 2400)):
            clip = {"x": 0, "y": top, "width": width, "height": min(2400, height - top), "scale": 1}
            options = {"captureBeyondViewport": True, "clip": clip}
            shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
            (self.pictures / f"{name}-{number}.png").write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; make setup does that")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing (Debian: apt-get install chromium chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = programs["chromium"]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(programs["chromedriver"]))
    yield Browser(driver, request.config.getoption("--pictures", default=None))
    driver.quit()


def launched(program: Any, *arguments: str) -> None:
    """A command in this process: a new one would take seconds to import everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["launch/program.py", *arguments])
        assert program.main() == 0


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """By name: runs of three kinds, one that has just begun, two of images beside each other, all beside each other."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield made(folder)


def made(folder: Path) -> dict[str, Path]:
    write_digits(folder / "digits")
    raw = write_synthetic_log(folder / "raw.tsv", 4000, 0)
    prepare_clicks("criteo", raw, folder / "prepared", PrepareOptions(max_rows_per_table=300))
    launched(search, *IMAGES, "--run-dir=images")
    launched(retrain, "images", "--controls=2", "--epochs=2")
    launched(correlate, "images", "--sample=8", "--epochs=2", "--proxies=naswot,az_progressivity")
    launched(search, *IMAGES, "--seed=1", "--run-dir=a-run-with-another-seed-and-a-long-name")
    launched(search, *CLICKS, *BASELINES, "--run-dir=clicks")
    launched(retrain, "clicks")
    launched(search, *FREE, *SEARCH, "--run-dir=training-free")
    begun = RunDir(folder / "begun")
    write_json(begun.config_json, to_json(PRESETS["mobilenetv2-imagenette"]()))
    runs = {name: RunDir(folder / name) for name in ("images", "clicks", "training-free", "begun")}
    found = {name: write_report(run, 2.5) for name, run in runs.items()}
    other = RunDir(folder / "a-run-with-another-seed-and-a-long-name")
    found["two"] = write_comparison([runs["images"], other])
    found["all"] = write_comparison([*runs.values(), other], 2.5)
    return found
