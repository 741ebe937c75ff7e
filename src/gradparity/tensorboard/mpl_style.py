"""Letters that can be read on TensorBoard's cards.

It shows a picture 350 pixels wide, a third of its size, and leaves out pixels instead of blending them: a thin letter
loses its strokes, a bold one keeps them.
"""

from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 200
CARD = (5.2, 3.0)
"""Inches that fill a card of the page that opens first, whose pictures are at most 215 pixels high."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def bold(figure: Figure) -> Figure:
    """``figure`` with all of its letters bold."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # makes the ticks, which would else be made when it is drawn
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontweight("bold")
    return figure


def power_of_ten(exponent: int) -> str:
    """In plain letters, since those of formulas have no bold ones.

    >>> power_of_ten(-12)
    '10⁻¹²'
    """
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"
