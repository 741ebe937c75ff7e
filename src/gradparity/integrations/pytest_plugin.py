"""The pytest fixture ``assert_parity``. It imports torch only in a test that uses it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def assert_parity(tmp_path: Path) -> Callable[..., None]:
    """Return :func:`gradparity.assert_parity` with its traces in the test's temporary folder."""
    from gradparity.integrations.testing import assert_parity

    return partial(assert_parity, folder=tmp_path / "parity")
