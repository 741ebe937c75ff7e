"""Any training loop, recorded while it runs, and two recordings compared.

Read in this order: ``fingerprint`` (a tensor in a few bytes), ``record`` (one line of a trace), ``recording`` (the
public ``record``), ``recorder`` with ``patch`` and ``guard`` (how a loop is watched without changing it), ``unseen``
(what was not seen), ``file`` (a trace on disk), ``diff`` (two traces compared), ``explain`` and ``explain_gradients``
(the likely meaning). ``command`` is ``gradparity diff``.
"""
