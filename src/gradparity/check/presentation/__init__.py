"""The answer of a check: its result, and how it is shown.

Read in this order: ``result``, ``report`` (for people) with ``remarks`` and ``not_judged``, ``report_as_json``,
``progress`` (while the check runs).
"""
