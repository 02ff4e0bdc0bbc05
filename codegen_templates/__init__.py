"""The templates of generated packages. Each is a module that runs as it stands, with a small pattern's constants;
`package.py` becomes the package's `__init__.py`.

The pattern: pattern.py says it as data, kernels/index_map.py and kernels/row_map.py as arithmetic:
open these to see what is particular here. The runtime: all else, which is the same for every
pattern but for constants and the kernels' names; open kernels/forward.py first.

kernels/   the Triton kernels and their index maps
launch/    grids, arguments and configurations of the kernels; binaries and measured configurations
rules/     the pattern as masks and tables, and how long a key is still read
checks/    what callers may pass
api/       the exported functions as operators of torch, and which path they take
parallel/  sequences split over ranks
cpu/       the CPU path; its C sources in c/
kvcache/   a cache that keeps only what later rows can still read
tuning/    measures configurations on the GPU that is here
"""
