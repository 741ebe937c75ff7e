"""Safe file access: ``append_only`` loses nothing if its process is killed, ``open_regular`` reads no pipe."""
