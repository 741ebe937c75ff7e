"""Imports done once in the server that forks processes: the libraries, and all that torch imports on first training."""

import warnings

import torch

from gradparity.faults import stress
from gradparity.studies.peers import with_trainparity as with_trainparity

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    stress.reference(**vars(stress.build("fp16")))
