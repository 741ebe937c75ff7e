"""Files that survive: ``append_only`` writes what a kill cannot lose, ``open_regular`` nothing without an end."""
