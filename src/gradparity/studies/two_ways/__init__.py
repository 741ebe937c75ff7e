"""Two trainings from one YAML file, which start in the same bits.

Read in this order: ``config``, ``yaml_fields``, ``cli``, ``build``, ``checkpoint``.
"""
