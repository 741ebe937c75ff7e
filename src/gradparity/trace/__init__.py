"""Recording of any training loop while it runs, and comparison of two recordings.

Read in this order: ``fingerprint`` (a tensor in a few bytes), ``record`` (one line of a trace), ``recording`` (the
public ``record``), ``recorder`` with ``patch`` and ``guard`` (a loop is watched without changing it), ``unseen``
(notes on events that were missed), ``file`` (a trace on disk), ``diff`` (two traces compared), ``explain`` and
``explain_gradients`` (the likely meaning). ``command`` is ``gradparity diff``.
"""
