/* What the CPU's kernels are asked for, and the numbers that they read and write. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

typedef enum { FLOAT32, BFLOAT16, FLOAT16 } Type;

typedef struct {
    void *data;
    int64_t batch, head, token; /* strides, in elements; the last dimension is contiguous */
} Tensor;

typedef struct {
    Tensor q, k, v, out, lse, dout, dlse, dq; /* lse and dlse are fp32; dlse may be absent */
    int64_t type, dim, v_dim, block, causal; /* dim: of q and k; v_dim: of v and out */
    int64_t q_start, q_len, kv_start, kv_len; /* in tokens */
    int64_t before, after, sink; /* key u of a partial block is kept where -after < t - u < before, or u < sink */
    int64_t first_row;           /* of the table */
    int64_t page_size;           /* in tokens, where k and v are in pages */
    const int64_t *pointers;     /* [rows + 1] */
    const int32_t *whole;        /* [rows]: so many columns of a row, its first ones, are kept whole */
    const int32_t *columns;      /* sorted, the whole ones and the others */
    const int32_t *pages;        /* tokens 0..page_size-1 are in the first of these, and so on; or NULL */
    double scale, softcap;       /* scores s become softcap * tanh(s / softcap); 0: as they are */
} Problem;

/* Output and LSE of query tokens first..last-1 of one head. Gives 1 where memory is short. */
int attn_forward(const Problem *p, int64_t batch, int64_t head, int64_t kv_head, int64_t first, int64_t last);

/* dq of query tokens first..last-1 of one head; what they give to dk and dv, fp32 [kv_len][width] and
 * [kv_len][v_width], is added. Gives 1 where memory is short. */
int attn_backward(const Problem *p, int64_t batch, int64_t head, int64_t kv_head, int64_t first, int64_t last,
                  float *dk, float *dv, int64_t width, int64_t v_width);

/* Which types this compiler knows, as bits. */
int attn_types(void);

/* The types, as bits, of which the kernels give wrong numbers: 0 where all is well. */
int attn_trial(void);

static inline float number(const void *data, int64_t at, int64_t type) {
    if (type == BFLOAT16) {
        union {
            uint32_t bits;
            float value;
        } wide = {(uint32_t)((const uint16_t *)data)[at] << 16};
        return wide.value;
    }
#ifdef __FLT16_MANT_DIG__
    if (type == FLOAT16) return (float)((const _Float16 *)data)[at];
#endif
    return ((const float *)data)[at];
}

static inline void put(void *data, int64_t at, int64_t type, float value) {
    if (type == BFLOAT16) {
        union {
            float value;
            uint32_t bits;
        } wide = {value};
        uint32_t even = wide.bits + 0x7fff + (wide.bits >> 16 & 1);
        ((uint16_t *)data)[at] = value != value ? 0x7fc0 : even >> 16;
        return;
    }
#ifdef __FLT16_MANT_DIG__
    if (type == FLOAT16) {
        ((_Float16 *)data)[at] = (_Float16)value;
        return;
    }
#endif
    ((float *)data)[at] = value;
}

static inline int64_t place(const Tensor *x, int64_t batch, int64_t head, int64_t token) {
    return batch * x->batch + head * x->head + token * x->token;
}
