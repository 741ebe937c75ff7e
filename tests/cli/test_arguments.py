"""The values of options such as ``--only``: names or beginnings of names, the same for every command."""

import pytest

from gradparity.cli.arguments import Parser, check_range
from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.errors import UserError

NAMES = ["clipping", "clipping, by value", "zero-grad", "Fabric", "Fabric, word for word"]


def only(*arguments):
    parser = Parser("x")
    add_choice(parser, "--only", "parts")
    return choose("--only", parser.parse_args([*arguments]).only, NAMES)


def test_without_the_option_everything_is_chosen():
    assert only() == NAMES


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--only", "zero"], ["zero-grad"]),
        (["--only", "FAB"], ["Fabric", "Fabric, word for word"]),
        (["--only", "zero, clip"], ["clipping", "clipping, by value", "zero-grad"]),
        (["--only", "zero", "clip"], ["clipping", "clipping, by value", "zero-grad"]),
        (["--only", "zero", "--only", "clip"], ["clipping", "clipping, by value", "zero-grad"]),
        (["--only", "fabric"], ["Fabric"]),
        (["--only", "Fabric, word"], ["Fabric, word for word"]),
    ],
)
def test_names_and_beginnings_choose_in_the_order_of_the_names(arguments, chosen):
    assert only(*arguments) == chosen


@pytest.mark.parametrize("text", ["", " ", "zero,", "clipping,nothing", "lipping"])
def test_an_unknown_or_empty_name_is_refused_with_the_names_that_exist(text):
    with pytest.raises(
        UserError, match=r"^--only is '(nothing|lipping|)'; choose from clipping; clipping, by value; zero"
    ):
        only("--only", text)


def test_too_many_names_are_not_listed():
    with pytest.raises(UserError, match=r"^--only is 'x'; choose from a theme or a fault$"):
        choose("--only", ["x"], NAMES, known="a theme or a fault")


def test_a_number_out_of_range_is_refused_with_its_option():
    check_range("--n", 1, 1, 9)
    check_range("--n", 9, 1, 9)
    for value in (0, 10):
        with pytest.raises(UserError, match=f"--n is {value}; allowed is 1 to 9"):
            check_range("--n", value, 1, 9)
