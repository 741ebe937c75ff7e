"""Two runs compared bit for bit while they train side by side.

Read in this order: ``bits`` (distance in ULP), ``state`` (what is compared at which phase), ``leaves`` and
``dense_parts`` (values and tensors of any kind, split into parts), ``compare`` (two values), ``lockstep`` (two runs),
``verdict``, ``explain`` and ``report`` (the result, in words). Beside these: ``aliasing``, ``modes_and_extras``,
``random_stream``, ``metrics``, ``step_metrics``, ``compare_on_gpu``, ``batch``.
"""
