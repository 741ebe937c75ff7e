"""What the user can mend."""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and how to mend it, in one sentence."""
