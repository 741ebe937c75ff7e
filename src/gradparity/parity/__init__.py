"""Two runs compared bit for bit while they train side by side.

Read in this order: ``bits`` (distance in ULP), ``place_in_training`` (step, microbatch and phase), ``state`` (the
values at each phase), ``flatten_values`` and ``dense_parts`` (values and tensors of any kind, split into parts),
``difference_kinds`` and ``mismatches`` (the ways in which two values differ), ``compare`` (live values, one by one),
``many_at_once``, ``compare_all`` and ``known_forms`` (all values of a phase together), ``live_state`` (those of a run),
``lockstep`` (two runs), ``verdict``, ``likely_cause``, ``explain_difference`` and ``report`` (the result, in words).
Beside these: ``model_tree`` and ``optimizer_names`` (names, found once), ``other_model_state``, ``explanation_kinds``,
``aliasing``, ``on_gpu/``, ``random_stream``, ``figures``, ``difference_sums``, ``metrics``, ``step_metrics``,
``batch``.
"""
