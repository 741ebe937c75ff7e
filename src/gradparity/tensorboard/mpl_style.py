"""Text that is readable on TensorBoard's cards.

TensorBoard shows a picture 350 pixels wide, a third of its size. It drops pixels instead of blending them, so a thin
letter loses its strokes and a bold letter keeps them.
"""

from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 200
CARD_SIZE = (5.2, 3.0)
"""Size in inches that fills a card of the first page, whose pictures are at most 215 pixels high."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def bold(figure: Figure) -> Figure:
    """Return ``figure`` with all of its text set to bold."""
    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # creates the ticks, else created only when it draws
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontweight("bold")
    return figure


def power_of_ten(exponent: int) -> str:
    """Return 10 to the ``exponent`` in plain characters, since math text has no bold.

    >>> power_of_ten(-12)
    '10⁻¹²'
    """
    return f"10{str(exponent).translate(SUPERSCRIPTS)}"
