"""An interpreter for the part of Gluon that the Hopper kernels use: their source runs on numpy, without a GPU.

`emulate.py` is the entry. One thread runs each partition of each program; `machine.py` lets one of them go on at a
time, chosen by a seed, and copies land in any order that hardware could choose. It finds wrong numbers, deadlocks,
barriers that count wrongly, reads of what has not arrived, writes into what is still read, missing fences, addresses
out of bounds. It does not know layouts in registers, 16-bit rounding, or what the compiler does.
"""
