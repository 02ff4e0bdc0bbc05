"""The templates of generated packages. Each is a module that runs as it stands, with a small pattern's constants;
`package.py` becomes the package's `__init__.py`.

Open `kernels/forward.py` first. `pattern.py` is the pattern as data, `kernels/index_map.py` and
`kernels/row_map.py` are it as arithmetic. All else is the same for every pattern, but for constants
and the kernels' names.

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
