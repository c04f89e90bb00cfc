"""The proofs of DESIGN §11: races and faults, with real processes, and a checker that knows every commit."""
