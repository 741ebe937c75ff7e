"""The command ``gradparity``: ``main`` runs the subcommand, ``exit_codes`` turns an error into a sentence and a code.

``arguments`` is the parser, and ``only_option`` the grammar of ``--only``. Each subcommand is the ``command`` module
of the room that it belongs to.
"""
