"""Frameworks that people really train with, each watched from outside while it runs its own idiomatic loop.

In reading order: ``scenario`` (what is trained), a file for each framework with the loop that its documentation
teaches, ``reference`` (what they are held against), ``watch`` (recording a loop and holding it against that),
``on_ranks`` (the same on two ranks), and ``known`` (what is known in public).
"""
