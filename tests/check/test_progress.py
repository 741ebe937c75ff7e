"""Progress is seen where the output is piped, too, and not with --quiet."""

import pytest

from gradparity.check.presentation import progress


@pytest.mark.parametrize(("shown", "lines"), [(True, 3), (False, 0)])
def test_a_line_every_few_seconds_unless_quiet(shown, lines, capsys, monkeypatch):
    now = iter(range(0, 100, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar(shown) as tell:
        for done in range(5):
            tell(done, 5)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("comparing with known faults") == (lines and said.err.count("\n"))
    assert (said.err.count("\n") > 0) == (lines > 0)
