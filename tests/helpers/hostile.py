"""The one check that whatever is fed to a command must pass, and what hostile things are made of.

``GRADPARITY_FUZZ=5000 python -m pytest tests/fuzz`` tries so many cases, other ones each time; by default few and the
same are tried.
"""

import faulthandler
import io
import os
import resource
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("GRADPARITY_FUZZ", "0"))


def cases(few, share=1.0):
    """Settings for a test that tries ``few`` cases by default, and a ``share`` of what is asked for."""
    tried = settings(
        max_examples=max(few, int(CASES * share)),
        derandomize=not CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: pytest.mark.many(tried(test))


class Hang(BaseException):
    """It took too long."""


class Started(BaseException):
    """The command has found nothing wrong, and was about to begin its work."""


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


def one_sentence(call, seconds=120, gigabytes=2):
    """Call what returns an exit code, and fail unless it does as promised: success, or 2 and one sentence.

    The seconds tell a hang from a busy machine.
    """
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", write_through=True)
    try:
        with watched(seconds), limited(gigabytes), redirect_stdout(out), redirect_stderr(err):
            code = call()
    except Started:
        code = 0
    except SystemExit as exited:
        code = exited.code
    except Hang:
        raise AssertionError(f"it hangs, or takes longer than {seconds} seconds") from None
    except BaseException as error:
        raise AssertionError(f"a traceback: {type(error).__name__}: {error}") from error
    told = Told(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))
    assert told.code in (0, 1, 2), told
    assert "Traceback" not in told.out + told.err, told
    assert "\x1b" not in told.out + told.err, "a terminal would obey"
    if told.code == 2:
        assert len(told.err.splitlines()) == 1, told
        assert len(told.err.strip()) > 20, told
        assert len(told.err) < 10_000, "a sentence is not that long"
    return told


@contextmanager
def watched(seconds):
    def hang(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(10 * seconds, exit=True)  # where not even the signal gets through
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def limited(gigabytes):
    """No more memory than what the process has and ``gigabytes``, where the system can tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + gigabytes * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


TEXTS = st.sampled_from(
    [
        "", " ", "\n", "\t", "\0", "\x1b[31mred", "\ud800", "\u202e", "é", "界", "😀", "a" * 3000, "[/bold]", "[red]", "$\\frac$", "$$",
        "%s", "{0}", "{x!r:>999999999}", "${HOME}", "$(touch marker)", "`touch marker`", "; touch marker", "../../marker",
        "/dev/zero", "/dev/stdin", "/etc/passwd", "..", ".", "/", "~", "-", "--", "--help", "-h", "null", "true", "NaN", "Infinity", "-1",
        "1e400", "0x10", "1_0", "1:30", "9" * 400, "9" * 5000, "[", "]", "{", "[" * 2000 + "]" * 2000, "{a: " * 200 + "}" * 200,
        "&a [*a]", "*a", "!!python/object/apply:os.system ['touch marker']", "!!timestamp x", "!!binary x", "evil.Evil",
        "{class_path: evil.Evil}", "evil.py", "con", "nul", "rank0", "__class__", "__init__", "model.0.weight", "module.", "_orig_mod.",
    ]
) | st.text(max_size=20)  # fmt: skip

NUMBERS = st.sampled_from(
    [0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**18, 10**400, 0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf")]
) | st.integers() | st.floats()  # fmt: skip

VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)
"""Anything that JSON or YAML can hold."""


def places(value, path=()):
    """The path of every place in nested dicts and lists."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@st.composite
def spoiled(draw, value):
    """``value`` with one to three places replaced, left out, renamed or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        value = replaced(value, draw(st.sampled_from(list(places(value)))), draw)
    return value


def replaced(value, path, draw):
    if not path:
        return draw(VALUES)
    head, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[head] = replaced(copy[head], rest, draw)
        return copy
    match draw(st.sampled_from(["replace", "remove", "rename", "double"])):
        case "replace":
            copy[head] = draw(VALUES)
        case "remove":
            del copy[head]
        case "rename" if isinstance(copy, dict):
            copy[draw(TEXTS)] = copy.pop(head)
        case "double" if isinstance(copy, list):
            copy.insert(head, copy[head])
    return copy


@st.composite
def spoiled_bytes(draw, data):
    """``data`` with some bytes changed, cut, put in or doubled; or only its beginning."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 8, 100, 10_000])))
        match draw(st.sampled_from(["change", "cut", "insert", "double", "truncate", "zero"])):
            case "change" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start:end]
            case "insert":
                data[start:start] = draw(
                    st.binary(max_size=20) | st.sampled_from([b"\n", b"\0" * 50, b"\xff\xfe", b"[" * 5000])
                )
            case "double":
                data[start:start] = data[start:end]
            case "truncate":
                del data[start:]
            case "zero":
                data[start:end] = bytes(end - start)
    return bytes(data)


KINDS = ("missing", "folder", "pipe", "endless", "loop", "empty", "huge", "no text")


def put_in_place_of(path, kind):
    """Something in the place of a file that is none, or not the one that is awaited."""
    path.unlink(missing_ok=True)
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "empty":
            path.touch()
        case "huge":
            path.touch()
            os.truncate(path, 2**40)  # all of it a hole
        case "no text":
            path.write_bytes(b"\xff\x00\xfe\x80" * 100)
    assert kind in KINDS


EVIL = 'open("marker", "w").close()\n\n\nclass Evil:\n    pass\n'
"""A module that leaves a mark where it is imported."""


@contextmanager
def within(folder):
    """In ``folder``, where a module ``evil`` could be imported."""
    before = Path.cwd()
    os.chdir(folder)
    (folder / "evil.py").write_text(EVIL)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        sys.modules.pop("evil", None)
