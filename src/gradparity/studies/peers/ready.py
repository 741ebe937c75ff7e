"""Imported once, where processes are forked from: the libraries, and all that torch imports when it first trains."""

import warnings

import torch

from gradparity.faults import stress
from gradparity.studies.peers import with_trainparity as with_trainparity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    stress.reference(**vars(stress.build("fp16")))
