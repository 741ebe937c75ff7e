"""Lightning's Trainer stopped at each phase (``stepwise_trainer``) and run in lockstep (``trainer_lane``)."""
