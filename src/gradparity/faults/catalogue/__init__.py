"""The known faults of training loops, one theme a file. :data:`gradparity.faults.FAULTS` has them all, by name."""
