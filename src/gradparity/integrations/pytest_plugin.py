"""The pytest fixtures ``assert_parity`` and ``gradparity_audit``. They import torch only in a test that uses them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gradparity.auditing.session import Audit


@pytest.fixture
def assert_parity(tmp_path: Path) -> Callable[..., None]:
    """Return :func:`gradparity.assert_parity` with its traces in the test's temporary folder."""
    from gradparity.integrations.testing import assert_parity

    return partial(assert_parity, folder=tmp_path / "parity")


@pytest.fixture
def gradparity_audit() -> "Iterator[Audit]":
    """Audit every training loop that the test runs; fail if one is wrong, with the line and what to write instead."""
    from gradparity.auditing.presentation.as_text import as_text
    from gradparity.auditing.session import Audit

    with Audit() as audit:
        yield audit
    if audit.report.wrong:
        pytest.fail(as_text(audit.report), pytrace=False)
