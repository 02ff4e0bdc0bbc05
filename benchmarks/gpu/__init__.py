"""The gpu suite: what the machine can do at best, then how much of it the generated kernels reach.

Its parts, in the order of what is not among the most telling, each with what it asks:

    compiling    what does compiling take, of each package and peer? (All at once; later parts find them compiled.)
    ceilings     how fast does this GPU copy, multiply matrices, and compute dense attention?
    attention    forward and backward, against FlashAttention-2 on dense attention
    serving      packed sequences, mixed batches over a paged cache, decoding
    host         what does a call take of Python?
    peers        the same mask by FlexAttention and by DKernel
    families     the plain kernels in Triton against those in Gluon: `choices` says which to take unasked
    variants     packages against copies in which one line is another (`changes`)
    first_call   how long does a new process wait for its first result?

`cells` lists what each part measures, and the most telling ones, which come before all others; `conduct` has them
measured by other processes within a budget of time and hands on each figure as it comes, `child` is such a process.
`steps` names what a cell is about to do, so that what hung in one is not done in another. Nothing is timed that
`witness` has not found right. Only torch, triton and the folder that `python -m benchmarks prepare` wrote are needed.
"""
