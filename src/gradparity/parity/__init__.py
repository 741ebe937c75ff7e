"""What is compared, how, and what came of it.

In reading order: ``bits`` (ULP), ``metrics`` (how far apart), ``state`` (what of a run, at which phase), ``compare``
(two values), ``random_stream``, ``lockstep`` (two runs), ``verdict`` and ``explain`` (what is told of it).
"""
