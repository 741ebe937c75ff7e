"""What is needed seldom is imported then: to start should take no longer than to import torch."""

import subprocess
import sys

import pytest

HEAVY = ("lightning", "matplotlib", "sklearn", "tensorboard", "torchmetrics", "transformers")


def imported(code):
    """Which heavy packages a program of one line has imported."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules), sep='\\n')"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line for line in done.stdout.splitlines() if line in HEAVY}


@pytest.mark.parametrize(
    "code",
    [
        "import gradparity",
        "import gradparity; gradparity.record",
        "from gradparity.cli.main import main; main(['--help'])",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert imported(code) == set()


def test_the_size_of_a_difference_is_measured_without_anything_heavy():
    code = "import torch; from gradparity.parity.mismatches import figures_of"
    assert imported(f"{code}; assert figures_of([(torch.ones(2), torch.zeros(2))]).differing == 2") == set()


def test_what_is_imported_is_seen():
    assert imported("import matplotlib") == {"matplotlib"}


@pytest.mark.long
def test_what_needs_them_does_import_them():
    assert {"torchmetrics", "tensorboard", "matplotlib"} <= imported(
        "import gradparity.tensorboard, gradparity.parity.metrics"
    )


def test_the_package_alone_does_not_even_import_torch():
    subprocess.run(
        [sys.executable, "-c", "import gradparity, gradparity.cli.main, sys; assert 'torch' not in sys.modules"],
        check=True,
    )
