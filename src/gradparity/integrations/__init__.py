"""Training loops of others, made to stop at the phases of an optimizer step so that lockstep can compare them."""
