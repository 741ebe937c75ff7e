"""What a person sees who opens TensorBoard, in a real browser: every page that README names, drawn without an error.

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

from gradparity import build
from gradparity.board import Board
from gradparity.matrix import board as matrix_board
from gradparity.matrix.cell import Cell
from gradparity.matrix.run import Outcome, Result
from gradparity.parity.readings import Reader
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
DRAWN = "(image) => image.complete && image.naturalWidth > 600"
PAGES = [
    ["data/runs", ["agree/by_backward", "agree/by_manual", "differ/by_clip-before-unscale", "cells/lstm"]],
    ["data/plugin/images/tags", ["agree/how_far_apart", "differ/how_far_apart", "all_cells"]],
    ["data/plugin/text/tags", ["1 first divergence/agree", "1 first divergence/differ"]],
    ["data/plugin/custom_scalars/layout", ["agree: both ways", "differ: both ways"]],
]


def write_training(folder, title, candidate):
    """Board's files of a small training, as ``train_two_ways.py`` writes them."""
    config = small_config(task="digits_mlp", precision="fp16", candidate=candidate)
    lanes = small_lanes(config)
    readers = [Reader(lane.run) for lane in lanes]
    parameters = [name for name, _ in lanes[0].run.model.named_parameters()]
    task = small_task("digits_mlp")
    with Board(folder, title, parameters, candidate) as board:
        for found in build_comparisons(lanes, config, task):
            board.compared(found)
            both = [r.take(m) for r, m in zip(readers, (found.reference, found.candidate), strict=True)]
            if all(both):
                board.read(found.step, *both)
        board.evaluated(0, "accuracy", 0.1, 0.1)
        board.evaluated(7, "accuracy", 0.5, 0.5)


def build_comparisons(lanes, config, task):
    from gradparity.parity.lockstep import lockstep

    return lockstep(*lanes, build.windows(config, task))


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_training(folder / "agree", "agree", "manual")
    write_training(folder / "differ", "differ", "clip-before-unscale")
    results = [
        Result(cell=Cell(task="gru"), outcome=Outcome.IDENTICAL, numbers=10),
        Result(cell=Cell(task="gru", k=4), outcome=Outcome.REFUSED, why="PyTorch cannot"),
        Result(
            cell=Cell(task="lstm"), outcome=Outcome.DIFFERENT, why="so", max_ulp=7, step=3, phase="clipped", part="rng"
        ),
    ]
    matrix_board.write(folder / "matrix", results)
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
            server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with sync_playwright() as playwright:
        folder = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=QUIETLY, viewport={"width": 1400, "height": 1300}
        )
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


def opened(page, address, tab, query=""):
    page.goto("about:blank")
    page.goto(f"{address}?{query}#{tab}")
    expect(page.locator(".active, .mdc-tab--active, [aria-selected=true]").first).to_be_visible()


def test_the_page_that_opens_first_shows_map_and_both_losses(page, address, screenshots):
    opened(page, address, "timeseries")
    for title in ("agree", "differ"):
        card = page.locator("card-view", has_text=f"1 glance/{title}, 1 divergence map")
        card.locator("img").wait_for()
        page.wait_for_function(DRAWN, arg=card.locator("img").element_handle())
    loss = page.locator("card-view", has_text="1 glance/agree, 2 loss")
    for run in ("agree/by_backward", "agree/by_manual"):
        expect(loss.get_by_text(run, exact=True).first).to_be_visible()
    page.screenshot(path=screenshots / "timeseries.png")


@pytest.mark.parametrize("tab", ["scalars", "images", "custom_scalars", "text", "hparams", "histograms"])
def test_tour(page, address, screenshots, tab):
    opened(page, address, tab)
    page.wait_for_timeout(3000)
    page.screenshot(path=screenshots / f"{tab}.png")
    Path(screenshots / f"{tab}.html").write_text(page.content())
