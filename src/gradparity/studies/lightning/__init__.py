"""Lightning compared with the reference: ``two_ways`` trains by both, ``inverted`` runs a Trainer step by step."""
