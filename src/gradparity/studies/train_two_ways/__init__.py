"""Two trainings from one YAML file, which start in the same bits.

Read in this order: ``config``, ``yaml_fields``, ``command_line``, ``build``, ``checkpoint``.
"""
