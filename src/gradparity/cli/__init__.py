"""The command ``gradparity``: ``main`` finds the subcommand, ``arguments`` makes errors a sentence and an exit code.

Each subcommand is the ``command`` module of the room that it belongs to.
"""
