"""Frameworks in wide use, each watched from outside while it runs its own idiomatic loop.

Read in this order: ``scenario`` (what is trained), a file for each framework with the loop from its documentation,
``reference`` (the steps that the loops are compared with), ``watch`` (record a loop and compare it), ``on_ranks`` (the
same on two ranks), ``known_issues`` (causes of differences, with the public issues) and ``result`` (the outcomes).
"""
