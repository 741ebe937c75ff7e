"""Lightning compared with the reference: ``two_ways`` trains by both, ``stepwise_trainer`` stops a Trainer at steps."""
