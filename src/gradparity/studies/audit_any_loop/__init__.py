"""Loops that are audited as they are written: each with a known mistake, and with its repair.

Read in this order: ``outcome``, ``result``.
"""
