"""What somebody sees who asks the package, or the command, what it is."""

import pydoc
import subprocess
import sys

import pytest

import gradparity
from gradparity.cli.main import COMMANDS, main


def test_help_on_the_package_shows_what_it_offers_and_how_it_is_called():
    shown = pydoc.render_doc(gradparity, renderer=pydoc.plaintext)
    for name in gradparity.__all__:
        assert f"\n    {name}(" in shown
        assert f"gradparity.{name}(" in (gradparity.__doc__ or "")
    for command in COMMANDS:
        assert f"$ gradparity {command}" in (gradparity.__doc__ or "")


def test_what_it_does_not_offer_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'recording'"):
        gradparity.recording  # noqa: B018  # asked for, to see it refused


def test_the_help_of_the_command_fits_a_screen_and_names_every_subcommand(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 24
    assert max(map(len, shown)) <= 120
    assert all(any(line.split()[:1] == [name] for line in shown) for name in COMMANDS)


def test_it_runs_as_a_module_too():
    shown = subprocess.run([sys.executable, "-m", "gradparity"], capture_output=True, text=True, check=True).stdout
    assert shown.startswith("usage: gradparity COMMAND")
