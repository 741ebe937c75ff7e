"""A fixture for pytest: ``assert_parity``. It imports torch only in a test that asks for it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def assert_parity(tmp_path: Path) -> Callable[..., None]:
    """:func:`gradparity.assert_parity`, which leaves its traces in pytest's temporary folder of the test."""
    from gradparity.integrations.testing import assert_parity

    return partial(assert_parity, folder=tmp_path / "parity")
