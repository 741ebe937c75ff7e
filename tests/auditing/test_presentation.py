"""The report as a page: one step as a picture, HTML and Markdown that stand alone, and TensorBoard."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from audited_loops import (
    X,
    Y,
    clipped_after_the_step,
    clipped_scaled,
    closure,
    generator_and_critic,
    loss_of,
    mean_of_means,
    never_zeroed,
    rate_written,
    short_window,
    small,
    stepped_twice,
    zeroed_between_microbatches,
)
from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.auditing.presentation.as_html import as_html
from gradparity.auditing.presentation.as_markdown import as_markdown, code, fenced, plain
from gradparity.auditing.presentation.board import write_board
from gradparity.auditing.presentation.draw_plot import draw_step
from gradparity.auditing.presentation.draw_svg import step_svg
from gradparity.auditing.presentation.picture_parts import Row
from gradparity.auditing.presentation.rule_pages import first_sentence
from gradparity.auditing.presentation.series import series
from gradparity.auditing.presentation.step_picture import LEFT_OUT, MOST_MICROBATCHES, step_picture
from gradparity.auditing.report import report
from gradparity.auditing.rules import RULES
from gradparity.auditing.watching.user_lines import Line
from gradparity.auditing.watching.watch import Watch
from gradparity.cli.main import main


def audited(loop, *arguments):
    watch = Watch(100)
    with watch.watching():
        loop(*arguments)
    facts = watch.facts()
    return facts, report(facts)


def pictured(loop, *arguments):
    facts, found = audited(loop, *arguments)
    return step_picture(facts, found.findings)


def order(lane):
    """The kinds of events of a lane in order of time, without the forwards."""
    return [cell.row for cell in sorted(lane.cells, key=lambda cell: cell.slot) if cell.row != Row.FORWARD]


def marked(picture):
    return [(cell.row, cell.slot, cell.code) for lane in picture.lanes for cell in lane.cells if cell.code]


def accumulated(microbatches, steps=4, clip=False):
    model, optimizer = small()
    for _ in range(steps):
        for index in range(microbatches):
            (loss_of(model) / microbatches).backward()
            if clip and index == microbatches // 2:
                nn.utils.clip_grad_norm_([model[0].weight], 0.01)
        optimizer.step()
        optimizer.zero_grad()


def test_a_step_is_in_the_order_of_its_events():
    [lane] = pictured(clipped_scaled, True).lanes
    assert order(lane) == [Row.EMPTY, Row.BACKWARD, Row.BACKWARD, Row.UNSCALE, Row.CLIP, Row.STEP, Row.UPDATE]
    assert [column.name for column in lane.columns] == ["0", "1"]


def test_the_offending_event_is_marked_and_the_one_that_it_collides_with():
    picture = pictured(clipped_scaled, False)
    [lane] = picture.lanes
    assert picture.title.endswith("GP201 clip-before-unscale")
    assert marked(picture) == [(Row.CLIP, 3, "GP201")]
    assert [cell.row for cell in lane.cells if cell.collides] == [Row.STEP]


@pytest.mark.parametrize(
    ("loop", "step", "mark"),
    [
        (never_zeroed, 1, (Row.BACKWARD, 0, "GP101")),
        (short_window, 2, (Row.BACKWARD, 0, "GP402")),
        (mean_of_means, 0, (Row.BACKWARD, 3, "GP401")),
        (zeroed_between_microbatches, 0, (Row.EMPTY, 1, "GP103")),
        (clipped_after_the_step, 0, (Row.CLIP, 3, "GP301")),
        (stepped_twice, 1, (Row.STEP, 3, "GP801")),
        (rate_written, 1, (Row.STEP, 3, "GP816")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_picture_shows_the_step_of_the_first_finding(loop, step, mark):
    picture = pictured(loop, False)
    assert picture.title.startswith(f"Step {step} of SGD: {mark[2]}")
    assert picture.lanes[0].title.startswith("SGD (audited_loops.py:")
    assert marked(picture) == [mark]


def test_a_clean_loop_shows_a_step_like_most_others():
    picture = pictured(never_zeroed, True)
    assert picture.title.startswith("Step 1 of SGD")
    assert "a step like most others" in picture.title
    assert marked(picture) == []
    assert [order(lane) for lane in picture.lanes] == [[Row.EMPTY, Row.BACKWARD, Row.STEP]]


def test_emptied_after_the_step_it_stands_after_the_step():
    [lane] = pictured(accumulated, 2).lanes
    assert order(lane) == [Row.BACKWARD, Row.BACKWARD, Row.STEP, Row.EMPTY]


def test_two_optimizers_have_a_lane_each_and_share_the_backward_that_reaches_both():
    picture = pictured(generator_and_critic, False)
    generator, critic = picture.lanes
    assert marked(picture) == [(Row.BACKWARD, 1, "GP107")]
    assert picture.title.startswith("Step 0 of Adam (audited_loops.py:")
    assert next(cell.slot for cell in generator.cells if cell.row == Row.BACKWARD) == 1
    assert [lane.columns != () for lane in picture.lanes] == [False, True], "it is the critic that the rule is about"
    assert {cell.code for cell in critic.cells} == {"", "GP107"}


def test_a_closure_stands_inside_its_step():
    [lane] = pictured(closure, True).lanes
    assert order(lane)[-1] == Row.STEP
    assert {cell.words for cell in lane.cells if cell.row == Row.BACKWARD} == {"1"}


def test_a_backward_shows_how_much_a_token_of_it_weighs():
    [lane] = pictured(mean_of_means, False).lanes
    words = [cell.words for cell in sorted(lane.cells, key=lambda cell: cell.slot) if cell.row == Row.BACKWARD]
    assert words == ["0.75", "1", "GP401 1.5"]
    assert [cell.words for cell in lane.cells if cell.row == Row.FORWARD] == ["12", "9", "6"]


def test_a_last_microbatch_in_a_closure_weighs_as_the_others():
    def loop():  # as Lightning does
        model, optimizer = small()
        for _ in range(3):
            optimizer.zero_grad()
            (loss_of(model) / 2).backward()
            optimizer.step(lambda: (loss_of(model) / 2).backward())

    [lane] = pictured(loop).lanes
    assert {cell.words for cell in lane.cells if cell.row == Row.BACKWARD} == {"1"}


def test_up_to_sixteen_microbatches_have_a_column_each_and_more_are_left_out_in_the_middle():
    [lane] = pictured(accumulated, MOST_MICROBATCHES).lanes
    assert [column.name for column in lane.columns] == [str(i) for i in range(16)]
    picture = pictured(accumulated, 40)
    [lane] = picture.lanes
    names = [column.name for column in lane.columns]
    assert names == ["0", "1", "2", "3", "4", "5", LEFT_OUT, "34", "35", "36", "37", "38", "39"]
    assert len(picture.widths) == len(names) + 2
    assert max(cell.slot for cell in lane.cells) == len(picture.widths) - 1


def test_a_marked_microbatch_is_never_left_out():
    picture = pictured(accumulated, 40, 4, True)
    assert [code for *_, code in marked(picture)] == ["GP303"]
    names = [column.name for column in picture.lanes[0].columns]
    assert names[6:9] == [LEFT_OUT, "20", LEFT_OUT]


def test_a_step_without_a_backward_beside_another_optimizer_is_drawn_too():
    def loop():
        one, other = small(), small()
        for _ in range(2):
            one[1].step()
            loss_of(other[0]).backward()
            other[1].step()
            other[1].zero_grad()

    facts, found = audited(loop)
    assert [f.rule.code for f in found.findings] == ["GP802"]
    picture = step_picture(facts, found.findings)
    assert [cell.code for cell in picture.lanes[0].cells] == ["GP802"]
    draw_step(picture)


def test_no_step_no_picture():
    facts, found = audited(lambda: None)
    assert step_picture(facts, found.findings) is None
    assert "<svg" not in as_html(found, facts, "x.py")
    assert "nothing was judged" in as_html(found, facts, "x.py")


ATTACK = "</code></pre><script>alert(1)</script>"


def attacked():
    model, optimizer = small()
    for _ in range(4):
        loss_of(model).backward()  # </code></pre><script>alert(1)</script> ``` @you <img src=x>
        optimizer.step()


class Page(HTMLParser):
    """The elements of a page, each closed as it must be, and everything that it would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.loads = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.loads += [value for name, value in attributes if name in ("src", "xlink:href") or name.startswith("on")]
        if tag not in ("meta", "line", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("loop", [lambda: clipped_scaled(False), lambda: generator_and_critic(False), attacked])
def test_the_page_stands_alone_and_runs_nothing(loop):
    facts, found = audited(loop)
    text = as_html(found, facts, f"{ATTACK}.py", f"ended {ATTACK}")
    page = Page(text)
    assert (page.open, page.loads) == ([], [])
    assert {"svg", "h1", "pre"} <= page.seen
    assert not {"script", "img", "link", "iframe"} & page.seen
    assert "@import" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_says_first_what_is_wrong_then_what_the_loop_does():
    facts, found = audited(clipped_scaled, False)
    text = as_html(found, facts, "train.py")
    places = [text.index(words) for words in ("1 wrong", "clipped to 1 while", "<svg", "What the loop does")]
    assert places == sorted(places)


def test_the_picture_is_sound_xml_with_the_source_of_each_event():
    picture = pictured(clipped_scaled, False)
    root = ElementTree.fromstring(step_svg(picture))
    titles = [element.text for element in root.iter("title")]
    assert any("nn.utils.clip_grad_norm_(model.parameters(), 1.0)" in title for title in titles)
    width = float(root.get("width"))
    assert all(float(box.get("x")) + float(box.get("width")) <= width for box in root.iter("rect"))


def test_markdown_is_short_shows_findings_first_and_cannot_be_broken_out_of():
    _, found = audited(attacked)
    text = as_markdown(found, "a_b*c.py", "ended @you")
    assert text.startswith("### gradparity audit of a\\_b\\*c.py: 1 wrong\n")
    assert text.index("GP101") < text.index("Write instead:") < text.index("What the loop does")
    outside = re.sub(r"(`{3,})python\n.*?\n\1", "", text, flags=re.DOTALL)
    assert "<script" not in outside
    assert "@you" not in outside
    assert outside.count("<details>") == outside.count("</details>") >= 1
    assert len(text.splitlines()) < 50


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (plain("1 < 2\n#3 |x| [a](b)"), r"1 \< 2 \#3 \|x\| \[a\](b)"),
        (code("a`b"), "`` a`b ``"),
        (fenced("s = '```'"), "````python\ns = '```'\n````"),
    ],
)
def test_text_stays_what_it_is_in_markdown(made, expected):
    assert made == expected


def test_series_show_weights_norms_scale_and_rate_by_step():
    facts, _ = audited(clipped_scaled, True)
    found = series(facts)
    assert [tag.partition("/")[2] for tag in found] == [
        "SGD, least", "SGD, largest", "SGD, before clipping", "SGD, after clipping", "SGD", "SGD",
    ]  # fmt: skip
    before, after = (found[f"2 gradient norm/SGD, {when} clipping"] for when in ("before", "after"))
    assert list(before) == list(range(6))
    assert all(after[step] <= min(1.0, before[step]) + 1e-4 for step in before)
    assert set(found["3 loss scale/SGD"].values()) == {1024.0}
    facts, _ = audited(mean_of_means, False)
    least, largest, *_ = series(facts).values()
    assert (least[0], largest[0]) == (pytest.approx(0.75), pytest.approx(1.5))


def test_several_optimizers_of_one_class_are_counted_apart():
    facts, _ = audited(generator_and_critic, True)
    assert {tag.partition("/")[2] for tag in series(facts)} >= {"Adam 1", "Adam 2"}


def test_tensorboard_gets_the_verdict_a_picture_and_the_series(tmp_path):
    facts, found = audited(clipped_scaled, False)
    write_board(tmp_path, found, facts, "train.py")
    board = EventAccumulator(str(tmp_path)).Reload()
    tags = board.Tags()
    assert tags["images"] == ["0 glance/one step"]
    assert {"1 verdict/text_summary", "2 what the loop does/text_summary"} <= set(tags["tensors"])
    [verdict] = board.Tensors("1 verdict/text_summary")
    assert verdict.tensor_proto.string_val[0].startswith(b"**gradparity audit of train.py: 1 wrong**")
    assert set(tags["scalars"]) == set(series(facts))
    assert len(board.Scalars("3 loss scale/SGD")) == 6


def test_the_drawing_has_every_figure_and_fits():
    for loop, *arguments in ((clipped_scaled, False), (generator_and_critic, False), (accumulated, 40)):
        picture = pictured(loop, *arguments)
        [axes] = draw_step(picture).axes
        texts = [text.get_text() for text in axes.texts]
        words = [cell.words for lane in picture.lanes for cell in lane.cells]
        assert all(texts.count(each) >= words.count(each) for each in words)
        assert all(0 <= text.get_position()[0] <= axes.get_xlim()[1] for text in axes.texts)
        assert all(0 <= text.get_position()[1] <= axes.get_ylim()[0] for text in axes.texts)


def test_names_of_a_user_are_drawn_as_they_are():
    model = nn.Linear(4, 3)

    class Odd(torch.optim.SGD):
        """An optimizer whose name would be math, or an element."""

    Odd.__name__ = r"$\alpha$ <b> größe"
    optimizer = Odd(model.parameters(), lr=0.1)

    def loop():
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()

    picture = pictured(loop)
    draw_step(picture).savefig("/dev/null", format="png")
    ElementTree.fromstring(step_svg(picture))


@pytest.mark.parametrize(("form", "beginning"), [("html", "<!doctype html>"), ("markdown", "### gradparity audit of ")])
def test_the_command_writes_the_page_to_a_file_and_the_board_beside_it(form, beginning, tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\nmodel = torch.nn.Linear(2, 1)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "for _ in range(3):\n    model(torch.ones(1, 2)).mean().backward()\n    optimizer.step()\n"
    )
    output, board = tmp_path / "report", tmp_path / "board"
    options = ["--format", form, "--output", str(output), "--tensorboard", str(board)]
    assert main(["audit", *options, str(script)]) == 1
    assert capsys.readouterr().err == ""
    assert output.read_text().startswith(beginning)
    assert "model(torch.ones(1, 2)).mean().backward()" in output.read_text()
    assert len(list(board.glob("1/events.out.tfevents.*"))) == 1
    assert main(["audit", "--tensorboard", str(board), str(script)]) == 1
    assert "See it: " in capsys.readouterr().err
    assert len(list(board.glob("2/events.out.tfevents.*"))) == 1, "a second audit is a second run"


def test_the_list_has_a_line_for_each_rule(capsys):
    assert main(["audit", "--list"]) == 0
    out = capsys.readouterr().out
    assert [line[:5] for line in out.splitlines()] == list(RULES)
    assert "GP201  clip-before-unscale" in out
    assert first_sentence("It is 1.5 long. Then more.") == "It is 1.5 long."


def test_a_clean_iteration_is_shown_from_its_beginning_to_its_end():
    generator, critic = pictured(generator_and_critic, True).lanes
    slots = [cell.slot for lane in (generator, critic) for cell in lane.cells if cell.row == Row.STEP]
    assert len(slots) == 2, "one step of each"
    assert slots[0] < slots[1]
    assert order(critic)[-1] in (Row.STEP, Row.EMPTY)


def test_what_was_not_exercised_names_the_optimizer_by_its_line_if_there_are_two():
    _, found = audited(generator_and_critic, False)
    assert len(set(found.unexercised)) == len(found.unexercised)
    assert all("Adam (audited_loops.py:" in words for words in found.unexercised)


def test_a_line_is_shown_once_and_one_without_text_as_its_place():
    here, gone = Line(__file__, 3), Line("<ipython-input-1>", 4)
    finding = RuleFinding(RULES["GP101"], RuleVerdict.WRONG, "Sentence.", here, here)
    assert finding.places == ["test_presentation.py:3: import re"]
    assert replace(finding, other=gone).places == ["test_presentation.py:3: import re", "<ipython-input-1>:4"]
