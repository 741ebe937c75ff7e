"""The command ``gradparity``: ``main`` runs the subcommand, ``arguments`` turns an error into a sentence and exit code.

Each subcommand is the ``command`` module of the package that it belongs to.
"""
