"""A recorded trace, judged by the rules of the audit as far as a trace goes: ``gradparity show``.

Read in this order: ``facts`` (the facts of a trace), ``optimizer_class``, ``clip_threshold``.
"""
