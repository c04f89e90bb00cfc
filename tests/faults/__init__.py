"""The fault matrix: each fault at each checkpoint of the outbox's work, and no event is lost or overtaken.

`target` is the process that a fault hits, `checkpoints` says where, `fault_injections` what happens to it there, and
`environment` what goes on around it. `mutants` is the reverse: each guard is taken away in turn, and a test must fail.
"""
