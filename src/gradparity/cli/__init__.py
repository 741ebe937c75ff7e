"""The command ``gradparity``: a file for each subcommand, with its options, its help and its exit code.

Read in this order: ``main`` (which subcommand), ``audit``, ``check``, ``diff``, ``show``. ``exit_codes`` turns an error
into a sentence and a code, ``arguments`` is the parser, and ``choose_by_name`` the grammar of ``--only``.
"""
