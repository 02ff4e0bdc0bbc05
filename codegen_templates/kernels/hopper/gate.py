"""A branch that every partition of a Hopper kernel takes, though the compiler thinks that none ever does.

LLVM moves what several partitions have in common, numbers that follow from a thread's place, to where they part. There
each number holds a register in all of them, and those of consumers are on the stack while the producer, which has
few registers, runs. But nothing is worked out early for what is rare, and a branch on what is no number is taken for
rare.
"""

from .box import FOUR_WARPS, ONE_WARP
from .frame import PLAIN
from .names import condition, gl, gluon


@gluon.jit
def gate():
    """A float that is no number, and 1, in shared memory, once a barrier of the program has followed."""
    flag = gl.allocate_shared_memory(gl.float32, [2, 1], PLAIN)
    flag.index(0).store(gl.full([1], float("nan"), gl.float32, FOUR_WARPS))
    flag.index(1).store(gl.full([1], 1.0, gl.float32, FOUR_WARPS))
    return flag


@gluon.jit
def through(flag, layout: gl.constexpr, function: gl.constexpr, args):
    """Call the function of a partition, once. `layout`: of a vector in its warps."""
    x = gl.sum(flag.index(0).load(layout), 0)
    count = gl.sum(flag.index(1).load(layout), 0).to(gl.int32)
    while condition(count > 0, disable_licm=True):
        if x != x:
            function(*args)
        count -= 1


@gluon.jit
def run_consumer(flag, function: gl.constexpr, args):
    """Call the function of a consumer, of four warps, through the gate `flag`."""
    through(flag, FOUR_WARPS, function, args)


@gluon.jit
def run_producer(flag, function: gl.constexpr, args):
    """Call the function of a producer, one warp, through the gate `flag`."""
    through(flag, ONE_WARP, function, args)
