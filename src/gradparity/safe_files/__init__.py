"""Safe file access.

``append_only`` loses nothing if its process is killed, ``open_regular`` reads no pipe, ``user_cache`` writes files of
the user's cache whole or not at all.
"""
