"""What a person sees who opens TensorBoard, in a real browser: every page that tensorboard/README.md names, drawn without an error.

The screenshots are kept where SCREENSHOTS says, or else in pytest's temporary folder.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from gradparity.parity.lockstep import lockstep
from gradparity.parity.step_metrics import StepMetricsReader
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.studies.matrix.cell import MatrixCell
from gradparity.studies.matrix.hparams import write_hparams
from gradparity.studies.matrix.result import matrix_result
from gradparity.studies.matrix.run import CellOutcome, CellResult
from gradparity.studies.result import write_result
from gradparity.studies.train_two_ways import build
from gradparity.tensorboard import Board
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.tensorboard.layout import charts
from small import small_config, small_lanes, small_task

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the PATH to open TensorBoard in"),
]

QUIETLY = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
LOADED = """
async (pages) => (await Promise.all(pages.map(async ([path, words]) => {
    const text = await (await fetch(path)).text();
    return words.every((word) => text.includes(word));
}))).every(Boolean)
"""
TWO_LINES = """
([card, onOneAnother]) => {
    const found = {};
    for (const line of card.shadowRoot.querySelectorAll("vz-line-chart2, tf-line-chart-data-loader").values()) {
        const root = line.shadowRoot.querySelector("vz-line-chart2")?.shadowRoot ?? line.shadowRoot;
        for (const path of root.querySelectorAll("path.line"))
            (found[path.getAttribute("stroke")] ??= new Set()).add(path.getAttribute("d"));
    }
    const [one, other, ...others] = Object.values(found).map((lines) => [...lines].join());
    const whole = (lines) => lines?.split("L").length >= 7;  // of the seven steps
    return whole(one) && whole(other) && !others.length && (one === other) === onOneAnother;
}
"""
CHARTS = list(charts("agree").popitem()[1])
PATIENCE = 180_000
"""Milliseconds, for a machine that is busy with other things."""
expect.set_options(timeout=PATIENCE)
DRAWN = "(image) => image.complete && image.naturalWidth > 600"
PAGES = [
    ["data/runs", ["agree/by_backward", "agree/by_manual", "differ/by_clip-before-unscale", "cells/lstm"]],
    ["data/plugin/images/tags", ["agree/how_far_apart", "differ/how_far_apart", "glance/the_answer"]],
    ["data/plugin/text/tags", ["1 first divergence/agree", "1 first divergence/differ"]],
    ["data/plugin/custom_scalars/layout", ["agree: both ways", "differ: both ways"]],
]


def write_training(folder, title, candidate):
    """Board's files of a small training, as ``train_two_ways.py`` writes them."""
    config = small_config(task="digits_mlp", precision="fp16", candidate=candidate)
    lanes = small_lanes(config)
    readers = [StepMetricsReader(lane.run) for lane in lanes]
    parameters = [name for name, _ in lanes[0].run.model.named_parameters()]
    verdict = Verdict()
    with Board(folder, title, verdict, DivergenceMap(parameters), candidate) as board:

        def watch(found):
            board.add_comparison(found)
            both = [r.take(m) for r, m in zip(readers, (found.reference, found.candidate), strict=True)]
            if all(both):
                board.add_metrics(found.place.step, *both)

        verdict_of(lockstep(*lanes, build.windows(config, small_task("digits_mlp"))), watch, verdict=verdict)
        board.add_evaluation(0, "accuracy", 0.1, 0.1)
        board.add_evaluation(7, "accuracy", 0.5, 0.5)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_training(folder / "agree", "agree", "manual")
    write_training(folder / "differ", "differ", "clip-before-unscale")
    results = [
        CellResult(cell=MatrixCell(task="gru"), outcome=CellOutcome.IDENTICAL, numbers=10),
        CellResult(cell=MatrixCell(task="gru", k=4), outcome=CellOutcome.REFUSED, why="PyTorch cannot"),
        CellResult(
            cell=MatrixCell(task="lstm"),
            outcome=CellOutcome.DIFFERENT,
            why="so",
            max_ulp=7,
            step=3,
            phase="clipped",
            part="rng",
        ),
    ]
    write_result(matrix_result(results), folder / "matrix" / "glance")
    write_hparams(folder / "matrix" / "cells", results)
    return folder


@pytest.fixture(scope="module")
def address(logdir):
    """TensorBoard on a free port of this machine alone, until the last test is done."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            lines = iter(server.stderr.readline, "")
            yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        finally:
            server.terminate()  # and with it the data server that it has started


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with sync_playwright() as playwright:
        folder = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=QUIETLY, viewport={"width": 1400, "height": 1300}, timeout=PATIENCE
        )
        context.set_default_timeout(PATIENCE)
        yield context
        context.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(browser, address):
    """A fresh page once TensorBoard has read all files; it must end without an error of its own."""
    page = browser.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_function(LOADED, arg=PAGES)
    yield page
    errors = page.errors
    page.close()
    assert errors == []


def opened(page, address, tab, ground="light"):
    """Without smoothing, and with charts of lines that are elements of the page, which a canvas would hide."""
    page.goto("about:blank")  # an address that differs after its # alone would not be loaded anew
    page.goto(f"{address}?smoothing=0&forceSVG=true&darkMode={str(ground == 'dark').lower()}#{tab}")


def wait_for_pictures(page, pictures):
    for picture in pictures.all():
        page.wait_for_function(DRAWN, arg=picture.element_handle())


def test_the_page_that_opens_first_tells_of_parity_and_of_a_difference(page, address, screenshots):
    opened(page, address, "timeseries")
    card = page.locator("card-view", has_text="1 glance/agree, 1 divergence map")
    card.locator("img").wait_for()
    wait_for_pictures(page, card.locator("img"))
    loss = page.locator("card-view", has_text="1 glance/agree, 2 loss")
    for run in ("agree/by_backward", "agree/by_manual"):
        expect(loss.get_by_text(run, exact=True).first).to_be_visible()
    drawn = loss.locator(".series-view > svg path")
    expect(drawn).to_have_count(2)
    expect(drawn.nth(1)).to_have_attribute("d", re.compile("^M.+L"))
    expect(drawn.nth(0)).to_have_attribute("d", drawn.nth(1).get_attribute("d"))
    page.screenshot(path=screenshots / "timeseries.png")
    expect(page.get_by_text("3 schedule").first).to_be_attached()
    assert page.locator("card-view", has_text="3 schedule").count() == 0, "details are folded away"


@pytest.mark.long
def test_scalars_of_both_ways_lie_on_one_line_and_of_a_fault_on_two(page, address, screenshots):
    opened(page, address, "scalars")
    for title, one in (("agree", True), ("differ", False)):
        card = page.locator("tf-scalar-card", has_text=f"1 glance/{title}, 2 loss").first
        page.wait_for_function(TWO_LINES, arg=[card.element_handle(), one])
    page.screenshot(path=screenshots / "scalars.png")


@pytest.mark.long
def test_custom_scalars_overlay_both_ways(page, address, screenshots):
    opened(page, address, "custom_scalars")
    expect(page.get_by_text("agree: both ways on top of each other")).to_be_visible()
    for chart, matches in zip(CHARTS, (2, 2, 4, 2, 2, 5), strict=True):
        box = page.locator("tf-custom-scalar-multi-line-chart-card").nth(CHARTS.index(chart))
        expect(page.get_by_text(chart, exact=True).first).to_be_visible()
        expect(box.get_by_text(f"Matches ({matches})")).to_be_visible()
        expect(box.locator("path.line").nth(matches - 1)).to_be_attached()
    page.screenshot(path=screenshots / "custom_scalars.png")


@pytest.mark.parametrize("ground", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_images_show_the_map_of_each_phase(page, address, screenshots, ground):
    opened(page, address, "images", ground)
    expect(page.locator("body.dark-mode")).to_have_count(int(ground == "dark"))
    for title in ("agree", "differ"):
        expect(page.get_by_text(f"1 glance/{title}, 1 divergence map").first).to_be_visible()
        expect(page.get_by_text(f"7 divergence map of each phase/{title}, 5 stepped").first).to_be_attached()
    expect(page.locator("tf-image-loader img").nth(11)).to_be_attached()
    wait_for_pictures(page, page.locator("tf-image-loader img"))
    page.screenshot(path=screenshots / f"images-{ground}.png")


@pytest.mark.long
def test_text_pages_name_the_first_difference_and_its_fix(page, address, screenshots):
    opened(page, address, "text")
    for words in (
        "No difference",
        "Identical, bit for bit: 7 steps",
        "the gradient of 1.weight differs",
        "The fix",
        "+ run.clip(run.parameters)",
    ):
        expect(page.get_by_text(words).first).to_be_visible()
    page.screenshot(path=screenshots / "text.png")


@pytest.mark.long
def test_hparams_can_be_filtered_by_verdict(page, address, screenshots):
    opened(page, address, "hparams")
    cells = page.locator("vaadin-grid-cell-content:visible")
    for verdict in ("identical", "refused", "different", "step 3, clipped, rng"):
        expect(cells.get_by_text(verdict, exact=True)).to_be_visible()
    page.screenshot(path=screenshots / "hparams.png")
    page.locator("paper-checkbox", has_text="identical").click()
    expect(cells.get_by_text("identical", exact=True)).to_have_count(0)
    expect(cells.get_by_text("different", exact=True)).to_be_visible()


def test_an_error_on_the_page_would_be_seen(page):
    with page.expect_console_message():
        page.evaluate("console.error('one'); setTimeout(() => { throw new Error('other') })")
    page.wait_for_function("true")
    assert page.errors[0] == "one"
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('last') })")
    assert page.errors[-1] == "last"
    page.errors.clear()
