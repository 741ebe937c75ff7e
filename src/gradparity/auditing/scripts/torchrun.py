"""The end of an audited script under ``torchrun``, which stops all ranks when one fails, and prints why."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.report import Report
from gradparity.auditing.scripts.run_script import Ended
from gradparity.auditing.scripts.sudden_end import Terminated


@contextmanager
def terminated_with_a_report(several: bool) -> Iterator[None]:
    """Let SIGTERM end the script in the block and not the process, so that the report comes first.

    torchrun sends it to the ranks that are left when one has failed. After the block it is ignored: the process ends by
    itself soon.

    Args:
        several: whether several ranks train together; nothing is done for one.
    """
    of_main = threading.current_thread() is threading.main_thread()
    if not several or not of_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def exit_code(found: Report, code: int, ended: Ended) -> int:
    """Return the exit code of the rank that reports: ``code``, or the script's own if that is 0.

    A rank whose script has failed must fail too, or torchrun leaves the others waiting for it. The reason of a code
    that is not 0 is written where torchrun looks for it.
    """
    code = code or ended.code
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path and code:
        codes = ", ".join(dict.fromkeys(f.rule.code for f in found.findings if f.verdict == RuleVerdict.WRONG))
        words = f"gradparity audit: {found.verdict}" + (f" ({codes})" if codes else "") + "; the report is above"
        with suppress(OSError):
            if not Path(path).exists():
                Path(path).write_text(json.dumps({"message": words, "timestamp": int(time.time())}))
    return code
