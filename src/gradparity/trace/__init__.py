"""Recording of any training loop while it runs, and comparison of two recordings.

Read in this order: ``record`` (the public function), ``events`` (one line of a trace), ``fingerprint`` (a tensor in a
few bytes) and ``columns`` (hundreds of them), ``late_fingerprints`` with ``arrangement`` (which tensors are read
together), ``digest`` (on the CPU) and ``late_digests`` (on a GPU), ``late_hash`` (one hash for many tensors),
``step_recorder`` with ``watchers``, ``wrapping`` and ``harmless_hooks`` (a loop is watched without changing it),
``timeline`` (the step and microbatch it is in), ``snapshot`` (the values at an event), ``gradients_before`` (writes to
gradients that no hook sees), ``late_records`` (nothing waits for a GPU), ``missed_events`` (notes on events that were
missed), ``trace_file`` and ``line_format`` (a trace on disk), ``compare_fingerprints``, ``events_compared`` and
``diff`` (two traces compared), ``same_updates``, ``explain_traces``, ``explain_gradients`` and ``explain_clipping``
(the likely cause), ``report``, ``ranks``. Small helpers: ``isolation``, ``hook_check``, ``autograd_graph``,
``nested_steps``, ``matching_names``, ``until_difference``, ``to_cpu``, ``process_rank``, ``running_clip``.
"""
