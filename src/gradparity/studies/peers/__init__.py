"""Other test libraries for training loops, each run on the same wrong loops, as its own documentation teaches.

In reading order: ``loop_in_pieces`` (a wrong loop in the pieces that the libraries take), ``with_pytest_torch``,
``with_trainparity`` (and ``children``, its processes), ``answers`` (their results). Neither library needs to be
installed.
"""
