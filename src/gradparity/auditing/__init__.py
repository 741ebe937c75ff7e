"""Judge any training loop where it stands, without a second loop to compare with.

Facts and verdicts are apart: the watchers write down what happens, and the rules are functions from that to findings.

Read in this order: ``events`` and ``facts`` (what is written down), ``gradient_looks`` (the gradients at an event),
``watching/`` (by whom), ``facts_file``, ``step_windows`` (the facts between two steps), ``rules/`` and ``finding``,
``report``, ``report_destination`` and ``loop_summary`` (the verdict, and what the loop does), ``presentation/`` (text,
pages, pictures), ``session`` (the function), ``scripts/`` (the command), ``recorded/`` (``gradparity show``).
"""

from gradparity.auditing.session import Audit, audit

__all__ = ["Audit", "audit"]
