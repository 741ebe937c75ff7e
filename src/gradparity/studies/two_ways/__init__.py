"""From a YAML file to two trainings from the same bits: ``config``, ``fields``, ``cli``, ``build``, ``checkpoint``."""
