"""The known faults of training loops, one file per theme. :data:`gradparity.faults.FAULTS` has all of them by name."""
