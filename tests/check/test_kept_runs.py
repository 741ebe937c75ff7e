"""The cache changes no answer, runs nothing, and is made again when it is not as it should be."""

import errno
import json
import math
import os
import pickle
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

import loops
from gradparity.check.lookup import environment, fault_lookup, kept_runs
from gradparity.check.lookup.fault_lookup import Match, look_up
from gradparity.check.lookup.kept_runs import KeptRuns
from gradparity.check.lookup.seen_runs import SeenRun, name_of, seen_run
from gradparity.check.lookup.tries import Tries
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.main import main
from gradparity.faults import FAULTS, stress_scenario
from gradparity.faults.patching import ClashError, reference_with
from gradparity.safe_files import user_cache
from stressed import PRECISION, known

RUNS = {
    "finished": SeenRun(b"01234567" * 3, LoopEnd()),
    "stopped": SeenRun(b"01234567", None),
    "raised": SeenRun(b"", LoopEnd(EndKind.RAISED, "RuntimeError", "a message\nof two lines")),
    "clashes": SeenRun(b"", None, clashes=True),
    "with its effect": SeenRun(b"01234567", None, effect=b"name1.25"),
    "with norms": SeenRun(b"", None, norms=({"a": 1.25, "b": None}, {"a": math.inf, "b": 0.1})),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADPARITY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "check"


def of_the_reference(kept, changes=(), precision=PRECISION):
    return kept.of(known(None), changes, precision)


def keep(runs=RUNS, **others):
    kept = KeptRuns()
    of_the_reference(kept, **others).update(runs)
    kept.keep()


def test_what_is_kept_is_there_in_the_next_check(cache):
    keep()
    assert of_the_reference(KeptRuns()) == RUNS
    assert [path.suffix for path in cache.iterdir()] == [".json"], "and nothing else"


def test_runs_of_another_reference_are_not_taken_for_these():
    keep()
    kept = KeptRuns()
    assert of_the_reference(kept, precision="bf16") == {}
    assert of_the_reference(kept, changes=[FAULTS["clipping-missing"]]) == {}
    assert kept.of(known("stepped-twice"), [], PRECISION) == {}


def test_without_a_cache_nothing_is_read_or_written(cache):
    keep()
    written = [path.read_bytes() for path in cache.iterdir()]
    kept = KeptRuns(use=False)
    assert of_the_reference(kept) == {}
    of_the_reference(kept)["more"] = RUNS["stopped"]
    kept.keep()
    assert [path.read_bytes() for path in cache.iterdir()] == written


DONE = []


def evil():
    DONE.append(1)


class Evil:
    def __reduce__(self):
        return evil, ()


def test_a_pickle_that_is_loaded_would_be_noticed():
    DONE.clear()
    pickle.loads(pickle.dumps(Evil()))
    assert DONE == [1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\n",
        lambda content: content.replace(b"3031", b"3032", 1),
        lambda content: b"a foreign file",
        lambda content: b"\x00\xff" * 100,
        lambda content: b"[" * 100_000,
        lambda content: json.dumps({"runs": {}}).encode(),
        lambda content: pickle.dumps(Evil()),
        lambda content: b"x" * (kept_runs.MOST_BYTES + 1),
    ],
)
def test_a_file_that_is_spoiled_or_foreign_is_made_again_with_one_line_and_runs_nothing(
    spoil, cache, capsys, monkeypatch
):
    keep()
    (path,) = cache.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    DONE.clear()
    kept = KeptRuns()
    assert of_the_reference(kept) == {}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{path} cannot be used (" in said
    of_the_reference(kept).update(RUNS)
    kept.keep()
    assert of_the_reference(KeptRuns()) == RUNS
    assert capsys.readouterr().err == ""
    assert DONE == []


def test_a_right_checksum_over_wrong_lines_is_no_cache(cache, capsys):
    body = json.dumps(["reference", "name", "abc", None]).encode()
    keep()
    (path,) = cache.iterdir()
    head = json.dumps([kept_runs._FORMAT, kept_runs.xxhash.xxh3_128_hexdigest(body)]).encode()
    path.write_bytes(head + b"\n" + body)
    of_the_reference(KeptRuns())
    assert "cannot be used" in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_no_cache_and_one_line_says_so(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRADPARITY_CACHE", str(tmp_path / "file"))
    keep()
    said = capsys.readouterr().err.splitlines()
    assert said
    assert all("file" in line for line in said)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("where", ["mkstemp", "replace", "fdopen"])
def test_a_disk_that_is_full_or_may_not_be_written_keeps_nothing_and_one_line_says_so(
    number, where, cache, capsys, monkeypatch
):
    keep({"old": RUNS["stopped"]})

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(user_cache.tempfile if where == "mkstemp" else user_cache.os, where, fail)
    keep()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert os.strerror(number) in said
    monkeypatch.undo()
    monkeypatch.setenv("GRADPARITY_CACHE", str(cache.parent))
    assert len(list(cache.iterdir())) == 1, "no half of a file"
    assert of_the_reference(KeptRuns()) == {"old": RUNS["stopped"]}, "what was there is there"


def test_no_home_is_no_cache_and_one_line_says_so(monkeypatch, capsys):
    for name in ("GRADPARITY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(user_cache.Path, "home", homeless)
    keep()
    assert capsys.readouterr().err.count("\n") == 1


def test_two_checks_at_once_keep_what_both_have_run():
    one, other = KeptRuns(), KeptRuns()
    assert of_the_reference(one) == of_the_reference(other) == {}
    for kept, name in ((one, "one"), (other, "other")):
        of_the_reference(kept)[name] = RUNS["finished"]
    one.keep()
    other.keep()
    assert of_the_reference(KeptRuns()).keys() == {"one", "other"}


WRITES = """
import sys
from gradparity.check.lookup.kept_runs import KeptRuns
from gradparity.check.running.observe import ObservedLoop
from gradparity.check.lookup.seen_runs import SeenRun
from gradparity.trace.events import Trace
for number in range(30):
    kept = KeptRuns()
    kept.of(ObservedLoop(Trace({}, []), []), [], "fp16")[sys.argv[1] + str(number)] = SeenRun(b"01234567" * 500, None)
    kept.keep()
"""


def test_two_processes_at_once_always_find_a_whole_file(cache):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES, name], stderr=subprocess.PIPE, text=True) for name in "ab"
    ]
    assert [writer.communicate()[1] for writer in writers] == ["", ""], "each would say what it cannot read"
    (runs,) = kept_runs._read(next(cache.iterdir()), quietly=False).values()
    assert len(runs) >= 30


def test_the_oldest_runs_are_dropped_where_there_are_too_many(cache, monkeypatch):
    monkeypatch.setattr(kept_runs, "MOST_BYTES", 10_000)
    for number in range(10):
        keep({str(number): SeenRun(b"01234567" * 100, None)})
    (path,) = cache.iterdir()
    assert path.stat().st_size < 10_000
    kept = of_the_reference(KeptRuns())
    assert "9" in kept
    assert "0" not in kept


def test_few_files_are_kept_the_newest_ones(cache, monkeypatch):
    for number in range(kept_runs.MOST_FILES + 2):
        monkeypatch.setattr(kept_runs, "environment", lambda number=number: f"environment{number}")
        keep()
        path = cache / f"environment{number}.json"
        os.utime(path, (number + 1, number + 1))
    keep({"more": RUNS["stopped"]})
    assert sorted(path.stem[-1] for path in cache.iterdir()) == ["2", "3", "4", "5"]


def test_another_version_of_anything_reads_nothing_of_this_one(monkeypatch):
    keep()
    environment.environment.cache_clear()
    before = environment.environment()
    for owner, name in ((environment.torch, "__version__"), (environment.np, "__version__")):
        with monkeypatch.context() as other:
            other.setattr(owner, name, "0.0")
            environment.environment.cache_clear()
            assert environment.environment() != before
            assert of_the_reference(KeptRuns()) == {}
    with monkeypatch.context() as other:
        other.setenv("MKL_CBWR", "COMPATIBLE")
        environment.environment.cache_clear()
        assert environment.environment() != before
    environment.environment.cache_clear()
    assert environment.environment() == before
    assert of_the_reference(KeptRuns()) == RUNS


def test_another_source_is_another_environment(tmp_path):
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "a.py").write_text("A = 1\n")
    before = environment.source(tmp_path)
    (tmp_path / "faults" / "a.py").write_text("A = 2\n")
    changed = environment.source(tmp_path)
    (tmp_path / "faults" / "a.py").rename(tmp_path / "faults" / "b.py")
    assert len({before, changed, environment.source(tmp_path)}) == 3


def seen(loop):
    return observe(call_by_name(loop, "loop"), stress_scenario.build, PRECISION)


def stopping(faults, expected):
    return observe_reference(faults, PRECISION, expected)


NEEDED = {"clip-before-unscale", "schedule-advanced-on-skipped-steps", "mean-of-microbatch-means", "stepped-twice"}
NEEDED |= {"naive-and-added-out-of-place", "optimizer-not-restored", "loss-detached"}
FEW = {name: fault for number, (name, fault) in enumerate(FAULTS.items()) if name in NEEDED or number % 8 == 0}


def found(loop, memory, processes=1, observed=stopping):
    return look_up(loop, known(None), observed, known=FEW, memory=memory, processes=processes)


LOOPS = {
    "a fault": lambda: known("clip-before-unscale"),
    "a late fault": lambda: known("optimizer-not-restored"),
    "one that raises": lambda: known("loss-detached"),
    "a pair": lambda: seen(loops.clip_and_schedule_wrong),
    "three": lambda: seen(loops.wired_by_hand),
    "unknown": lambda: seen(loops.shorter_and_shorter),
    "the same updates": lambda: seen(loops.gradients_kept_aside),
}


@pytest.mark.parametrize("kind", [*(pytest.param(k, marks=pytest.mark.long) for k in LOOPS if k in ("three", "a late fault")),
                                  *(k for k in LOOPS if k not in ("three", "a late fault"))])  # fmt: skip
def test_an_answer_from_the_cache_is_the_answer_without_one(kind, monkeypatch):
    monkeypatch.setattr(fault_lookup, "MOST_PAIRS", 60)
    loop = LOOPS[kind]()
    without = found(loop, {})
    for processes in (2, 1):
        kept = KeptRuns()
        assert found(loop, of_the_reference(kept), processes) == without
        kept.keep()
    ran = []
    again = found(
        loop, of_the_reference(KeptRuns()), 1, lambda faults, expected: ran.append(faults) or stopping(faults, expected)
    )
    assert again == without
    named = without.faults if without.match in (Match.FAULT, Match.PAIR) else ()
    assert len(ran) <= len(named), "only what is named is run again"


def test_what_one_loop_leaves_in_the_cache_answers_for_another():
    memory = {}
    for name in ("stepped-twice", "clip-before-unscale"):
        there = found(known(name), memory)
        assert there.faults == (FAULTS[name],)
        assert there == found(known(name), {})


def test_a_fault_is_not_named_on_the_word_of_a_cache(capsys):
    """One in which the run of a fault is that of another."""
    right, wrong = FAULTS["stepped-twice"], FAULTS["clip-before-unscale"]
    keep({name_of([wrong]): seen_run(known(right.name))})
    kept = KeptRuns()
    there = found(known(right.name), of_the_reference(kept))
    assert there == found(known(right.name), {})
    assert there.faults == (right,)
    kept.keep()
    assert "held runs that are not those of this machine" in capsys.readouterr().err
    run = of_the_reference(KeptRuns())[name_of([wrong])]
    assert run.end is None
    assert seen_run(known(wrong.name)).hashes.startswith(run.hashes)
    keep({"more": RUNS["stopped"]})
    assert capsys.readouterr().err == ""


def clash(pair):
    try:
        reference_with(pair)
    except ClashError:
        return True
    return False


def test_faults_that_clash_are_remembered_as_such():
    one, other = next(pair for pair in combinations(FAULTS.values(), 2) if clash(pair))
    tries = Tries(known("stepped-twice"), known(None), stopping, {})
    ((faults, _),) = tries.each([(one, other), (one,)])
    assert faults == (one,)
    assert tries.memory[name_of([one, other])].clashes


def test_an_identical_loop_needs_no_cache(cache, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(kept_runs, "_read", lambda *_, **__: pytest.fail("it is read"))
    assert main(["check", "loops:example"]) == 0
    assert not cache.exists()


def test_the_command_prints_the_same_with_a_cache_and_without(capsys, monkeypatch, cache):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    printed = []
    for options in (["--no-cache"], [], []):
        assert cache.exists() == (len(printed) == 2)
        assert main(["check", "loops:clip_and_schedule_wrong", *options]) == 1
        printed.append(capsys.readouterr().out)
    assert "two faults: clip-before-unscale and schedule-advanced-on-skipped-steps" in printed[0]
    assert printed[0] == printed[1] == printed[2]
