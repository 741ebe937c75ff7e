"""What a line of a trace may say, and everything beside it that is refused."""

import pytest

from gradparity.parity.state import Part
from gradparity.trace.digest import Hash
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.line_format import MOST_VALUES, about_in, forms_in, parsed, record_in

ROW = ["weight", "float32", [2, 3], [3, 1], "dense"]
PRINT = Fingerprint("float32", (2, 3), (3, 1), "dense", "0" * 32, 0.5)
PACKED = {"form": 0, "digests": "0" * 32, "norms": "0.5", "values": {"lr": 0.1, "params": ["weight"], "fused": None}}
LINE = {"event": "step", "step": 3, "microbatch": 1, "tensors": "1.safetensors", "parts": {"parameters": PACKED}}


def test_a_line_that_is_right_is_taken_as_it_is():
    values = {"lr": 0.1, "params": ("weight",), "fused": None, "weight": PRINT}
    expected = Record(Event.STEP, 3, 1, {Part.PARAMETERS: values}, "1.safetensors")
    assert record_in(LINE, [forms_in([ROW])]) == expected
    assert about_in({"format": 1, "torch": "2"}) == {"format": 1, "torch": "2"}
    assert parsed(b'{"about": {}}') == {"about": {}}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[("event", value) for value in ("unheard", 3, None, [])],
        *[("step", value) for value in (-1, 2**63, 1.0, "1", True, None)],
        *[("microbatch", value) for value in (-1, 2**63, 1.0, "1", True)],
        *[
            ("tensors", value)
            for value in ("../x.safetensors", "/x.safetensors", "a/b.safetensors", "..", "", "x", 3, [])
        ],
        *[("parts", value) for value in ([], {"unheard": {}}, {"loss": []}, {"loss": {"values": []}})],
    ],
)
def test_each_part_of_a_record_has_its_kind(place, value):
    with pytest.raises(ValueError, match=r"not what a trace has at this place|is not a valid"):
        record_in({**LINE, place: value}, [forms_in([ROW])])


@pytest.mark.parametrize("left_out", ["event", "step"])
def test_a_record_that_lacks_something_is_refused(left_out):
    with pytest.raises(KeyError):
        record_in({key: value for key, value in LINE.items() if key != left_out}, [forms_in([ROW])])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[("form", value) for value in (1, -1, True, "0")],
        *[("digests", value) for value in ("0" * 31, "0" * 33, 0, ["0"] * 32)],
        *[("norms", value) for value in ("", "0.5 0.5", "a", "0.5,", ["0.5"], 0.5)],
        *[("values", value) for value in ({"a": {}}, {"a": [1]}, {"a": [[]]}, [], dict.fromkeys(map(str, range(MOST_VALUES))))],
    ],
)  # fmt: skip
def test_each_value_of_a_record_has_its_kind(place, value):
    with pytest.raises(ValueError, match=r"not what a trace has at this place|argument|could not convert"):
        record_in({**LINE, "parts": {"loss": {**PACKED, place: value}}}, [forms_in([ROW])])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[(0, value) for value in (3, None, ["a"])],
        *[(1, value) for value in (32, None)],
        *[(2, value) for value in ([2], [-2, 3], [2.0, 3], [2, True], "23", [2**18, 2**19], [1] * 65)],
        *[(3, value) for value in ([1], [3, -1], [3, 1, 1], "31")],
        *[(4, value) for value in (None, 1)],
    ],
)
def test_each_place_of_a_form_has_its_kind(place, value):
    row = [*ROW[:place], value, *ROW[place + 1 :]]
    if (place, value) == (2, [1] * 65):
        row[3] = [1] * 65  # as many strides
    with pytest.raises(ValueError, match="not what a trace has at this place"):
        forms_in([row])


@pytest.mark.parametrize("rows", [{}, 3, [{}], [[]], [ROW[:4]], [[*ROW, 1]], [[*ROW, "md5"]], [[*ROW, "sums", "sums"]]])
def test_a_form_is_rows_of_five_or_six(rows):
    with pytest.raises(ValueError, match=r"not what a trace|unpack|not a valid Hash"):
        forms_in(rows)


def test_a_digest_is_by_xxh3_unless_its_form_names_another_hash():
    _, forms = forms_in([ROW, [*ROW, "sums"]])
    assert [form.by for form in forms.rows] == [Hash.XXH3, Hash.SUMS]


@pytest.mark.parametrize("said", [[], 3, {"a": 1.5}, {"a": None}, {"a": True}, {"a": []}])
def test_facts_about_the_run_are_text_or_whole_numbers(said):
    with pytest.raises(ValueError, match="not what a trace has at this place"):
        about_in(said)


@pytest.mark.parametrize("text", [b"[]", b"3", b"", b"{", b"\xff", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_a_line_is_one_object(text):
    with pytest.raises(ValueError, match=r"."):
        parsed(text)


def test_text_that_a_terminal_would_obey_is_escaped_wherever_it_stands():
    hostile, shown = "\x1b[31m\n\ud800é", "\\x1b[31m\\n\\ud800é"
    (name,), forms = forms_in([[hostile, hostile, [], [], hostile]])
    assert (name, forms.rows) == (shown, ((shown, (), (), shown, Hash.XXH3),))
    assert about_in({hostile: hostile}) == {shown: shown}
    values = {hostile: hostile, "b": [hostile]}
    record = record_in({**LINE, "parts": {"loss": {"values": values}}}, [])
    assert record.parts[Part.LOSS] == {shown: shown, "b": (shown,)}


def test_two_names_that_are_printed_alike_are_one():
    lines = {**PACKED, "digests": "0" * 64, "norms": "1 2", "values": {"lr": 0.1}}
    record = record_in({**LINE, "parts": {"loss": lines}}, [forms_in([["\\x1b", *ROW[1:]], ["\x1b", *ROW[1:]]])])
    assert (list(record.parts[Part.LOSS]), record.parts[Part.LOSS]["\\x1b"].norm) == (["lr", "\\x1b"], 2)
