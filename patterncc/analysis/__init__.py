"""What a pattern does, known before a GPU is touched.

verify.py    open this first: which proofs a property takes, for which heads, and their verdicts
verdict.py   what a proof answers: it holds, or not with the smallest witness, or it is undecided
scopes.py    the heads that one proof speaks of: a head, a KV group, a layer

geometry/    sets of block and token pairs: boxes, residues, unions, and the smallest pair that lies outside them
proofs/      one file for each property, its theorem and the proof in the docstring; reach/ is over several layers
costs/       counts: kept pairs, live keys, what each rank does and sends
explain/     verdicts and differences in words, and the edit of the file that mends a broken promise
"""
