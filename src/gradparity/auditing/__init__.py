"""Judge any training loop where it stands, without a second loop to compare with.

Facts and verdicts are apart: the watchers write down what happens, and the rules are functions from that to findings.

Read in this order: ``events``, ``watch``, ``function_watchers``, ``loss_weights``, ``graph_facts``,
``weight_averages``, ``step_windows``, ``rules``, ``report``, ``presentation``, ``session`` (the ``audit`` of Python).
"""

from gradparity.auditing.session import Audit, audit

__all__ = ["Audit", "audit"]
