"""The fault matrix: each fault strikes at each point of an outbox's work, and nothing is lost or overtaken.

`victim` is the process that is struck, `points` say where it stops for that, `strikes` what
happens to it there, `stage` is what goes on around it. `mutants` is the reverse: each guard
is taken away in turn, and the suite must turn red.
"""
