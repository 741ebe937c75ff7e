"""gradparity: two ways to a gradient, trained in lockstep and compared bit for bit."""
