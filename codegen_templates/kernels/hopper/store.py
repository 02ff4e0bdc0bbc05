"""From the registers of a warpgroup to memory: 64 rows of 16-bit numbers, 16 bytes at a time."""

from ..tiles import HEAD_DIM, LN_2
from .box import rows_told
from .names import gl, gluon
from .steps import by_rows
from .tiles import ROWS, WIDTH

# [rows, columns] of 64 x WIDTH: what a register, a lane and a warp of the output's layout add to a place. Four lanes
# share a row and hold two neighbours each; in two exchanges between them, each comes to hold eight: 16 bytes.
_REST = [[0, 1 << n] for n in range(5, WIDTH.value.bit_length() - 1)]
_WARPS = [[16, 0], [32, 0]]
_SHAPE = [64, WIDTH.value]
HALF = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [8, 0], [0, 16], *_REST], [[0, 8], [0, 4], [1, 0], [2, 0], [4, 0]], _WARPS, [], _SHAPE
    )
)
WIDE = gl.constexpr(
    gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [0, 4], [8, 0], *_REST], [[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]], _WARPS, [], _SHAPE
    )
)


@gluon.jit
def store_wide(b_x, p, o_row, m_row):
    """Store rows of `b_x` [64, WIDTH], HEAD_DIM numbers each, where m_row says so, o_row behind p. Both [64], in
    SliceLayout(1, WIDE)."""
    # the cast keeps the two exchanges apart: as one they would go through shared memory
    b_bits = gl.convert_layout(b_x.to(p.dtype.element_ty), HALF).to(gl.int16, bitcast=True)
    b_out = gl.convert_layout(b_bits, WIDE).to(p.dtype.element_ty, bitcast=True)
    o_d = gl.expand_dims(gl.arange(0, WIDTH, gl.SliceLayout(0, WIDE)), 0)
    m = gl.expand_dims(m_row, 1)
    if WIDTH > HEAD_DIM:
        m = m & (o_d < HEAD_DIM)
    gl.store(p + (gl.expand_dims(o_row, 1) + o_d), b_out, mask=m)


@gluon.jit
def store_rows(b_o, b_max, b_sum, out, lse, strides, box, own, W: gl.constexpr, late, ALIGN: gl.constexpr,
               s_layout: gl.constexpr, o_layout: gl.constexpr):  # fmt: skip
    """Store output and LSE of a consumer's rows, which lie where the producer told. `late`: see `late_zero`."""
    s_ob, s_oh, s_on, s_lb, s_lh = strides
    i_batch, i_head, i_row, t_base, q_start, q_stop = rows_told(box, own)
    i_batch, i_head, i_row = i_batch.to(gl.int64), i_head.to(gl.int64), (i_row + W * ROWS).to(gl.int64)
    row_from, row_to = q_start - t_base - W * ROWS, q_stop - t_base - W * ROWS
    out += (i_batch * s_ob + i_head * s_oh + i_row * s_on) * ALIGN
    lse += i_batch * s_lb + i_head * s_lh + i_row
    b_sum = gl.convert_layout(gl.sum(b_sum, 1), gl.SliceLayout(1, s_layout))
    b_o = b_o * by_rows(1.0 / gl.where(b_sum == 0.0, 1.0, b_sum), o_layout)
    o_m = gl.arange(0, ROWS, gl.SliceLayout(1, WIDE)) + late
    store_wide(b_o, out, o_m * ((s_on + late) * ALIGN), (o_m >= row_from) & (o_m < row_to))
    o_m = gl.arange(0, ROWS, gl.SliceLayout(1, s_layout)) + late
    # -inf where nothing was kept: the logarithm of 0
    gl.store(lse + o_m, (b_max + gl.log2(b_sum)) * LN_2, mask=(o_m >= row_from) & (o_m < row_to))
