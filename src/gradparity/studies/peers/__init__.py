"""Other test libraries for training loops, each asked about the same wrong loops, as its own documentation teaches.

In reading order: ``pieces`` (a wrong loop in the pieces that they ask for), ``with_pytest_torch``, ``with_trainparity``
(and ``children``, its processes), ``answers`` (what came of it). Neither library needs to be installed.
"""
