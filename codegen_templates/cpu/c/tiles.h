/* Attention over the kept blocks on the CPU, forward and backward: what `cpu/compiled.py` calls.
 *
 * Lanes are queries. A panel is PANEL query tokens, and what belongs to them is kept transposed: scores [keys][PANEL],
 * output [dim][PANEL]. So keys and values are read where they lie, one number for all lanes, the maximum and the sum of
 * the softmax never cross lanes, and one product serves all seven of forward and backward:
 *
 *     c[m][lane] += sum over n of a[m, n] * b[n][lane]
 *
 * Softmax is the online one (Milakov and Gimelshein 2018; Dao et al. 2022), in base 2. Nothing here depends on the
 * pattern: which blocks a row keeps comes as a table, and which tokens of a block that is kept in part as two distances
 * and a number of sinks.
 */
#include "problem.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define PANEL 16
#define VECTORS (PANEL / LANES)
#define GROUP (12 / VECTORS) /* rows of a product in registers: twelve accumulators hide the latency of multiply-add */
#define TILE 64              /* queries that share what is read of keys */
#define PANELS (TILE / PANEL)
#define KEYS 128             /* most in one step */

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Unsigned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    int64_t first, count; /* tokens, from the sequence's beginning */
    int partial;
} Run;

#define PRODUCT(ROWS)                                                                                                  \
    static void product_##ROWS(const float *restrict a, int64_t by_m, int64_t by_n, const float *restrict b,           \
                               int64_t b_row, float *restrict c, int64_t c_row, int64_t n, int add) {                  \
        Vector sum[ROWS][VECTORS];                                                                                     \
        for (int m = 0; m < ROWS; m++)                                                                                 \
            for (int w = 0; w < VECTORS; w++)                                                                          \
                sum[m][w] = add ? *(Vector *)(c + m * c_row + w * LANES) : (Vector){0};                                \
        EACH(i, n) {                                                                                                   \
            Vector x[VECTORS];                                                                                         \
            for (int w = 0; w < VECTORS; w++) x[w] = *(const Vector *)(b + i * b_row + w * LANES);                     \
            for (int m = 0; m < ROWS; m++)                                                                             \
                for (int w = 0; w < VECTORS; w++) sum[m][w] += a[m * by_m + i * by_n] * x[w];                          \
        }                                                                                                              \
        for (int m = 0; m < ROWS; m++)                                                                                 \
            for (int w = 0; w < VECTORS; w++) *(Vector *)(c + m * c_row + w * LANES) = sum[m][w];                      \
    }
#if VECTORS == 1
PRODUCT(12)
#define product_group product_12
#elif VECTORS == 2
PRODUCT(6)
#define product_group product_6
#else
PRODUCT(3)
#define product_group product_3
#endif
PRODUCT(4)
PRODUCT(2)
PRODUCT(1)

/* c[m][lane] (+)= sum of a[m, i] * b[i][lane], for m of `rows` and i of `n`. */
static inline void product(const float *a, int64_t by_m, int64_t by_n, const float *b, int64_t b_row, float *c,
                           int64_t c_row, int64_t rows, int64_t n, int add) {
    int64_t m = 0;
#define NEXT(ROWS) product_##ROWS(a + m * by_m, by_m, by_n, b, b_row, c + m * c_row, c_row, n, add)
    for (; m + GROUP <= rows; m += GROUP) NEXT(group);
    for (; m + 4 <= rows; m += 4) NEXT(4);
    for (; m + 2 <= rows; m += 2) NEXT(2);
    for (; m < rows; m++) NEXT(1);
#undef NEXT
}

static inline Vector larger(Vector a, Vector b) {
    Bits first = a > b;
    return (Vector)(((Bits)a & first) | ((Bits)b & ~first));
}

/* 2**x to 1e-7, for x <= 0: exactly 0 below 2**-126, NaN for NaN. */
static inline Vector exp2_of(Vector x) {
    Vector shifted = x + 12582912.0f; /* 1.5 * 2**23: rounds to the nearest integer, and leaves it in the low bits */
    Vector f = x - (shifted - 12582912.0f);
    Vector y = 1.5403530e-4f * f + 1.3333558e-3f; /* Taylor's, to f**6: |f| <= 1/2 */
    y = y * f + 9.6181291e-3f;
    y = y * f + 5.5504109e-2f;
    y = y * f + 2.4022651e-1f;
    y = y * f + 6.9314718e-1f;
    y = y * f + 1.0f;
    Bits gone = x < -126.0f;
    return (Vector)(((Unsigned)y + ((Unsigned)shifted << 23)) & (Unsigned)~gone);
}

/* tanh to 1e-7: by its series below 1/4, where the quotient of exponentials would lose digits. */
static inline Vector tanh_of(Vector x) {
    Vector a = larger(x, -x), e = exp2_of(a * -2.8853900817779268f), y = x * x, quotient = (1.0f - e) / (1.0f + e);
    Vector series = 2.1869488e-2f * y - 5.3968254e-2f;
    series = series * y + 1.3333333e-1f;
    series = series * y - 3.3333333e-1f;
    series = a + a * y * series;
    Bits small = a < 0.25f, sign = (Bits)((Unsigned)x & 0x80000000u);
    return (Vector)((((Bits)series & small) | ((Bits)quotient & ~small)) | sign);
}

/* Scores in powers of 2, [keys][row] of a panel, with the tanh that the pattern says. */
static void cap(const Problem *p, int64_t keys, float *scores, int64_t row) {
    float most = p->softcap * M_LOG2E;
    if (p->softcap) EACH(i, keys)
            for (int w = 0; w < VECTORS; w++) {
                Vector *score = (Vector *)(scores + i * row + w * LANES);
                *score = tanh_of(*score / most) * most;
            }
}

/* Keys or values of n tokens as fp32: where they are, or brought to `room`, [n][dim]. Gives their stride. */
static const float *rows_of(const Problem *p, const Tensor *x, int64_t batch, int64_t head, int64_t token, int64_t n,
                            int64_t dim, float *room, int64_t *row) {
    if (p->type == FLOAT32 && !p->pages) {
        *row = x->token;
        return (const float *)x->data + place(x, batch, head, token);
    }
    *row = dim;
    EACH(i, n) {
        int64_t at = token + i, entry = p->pages ? p->pages[at / p->page_size] : batch;
        at = place(x, entry, head, p->pages ? at % p->page_size : at);
        if (p->type == FLOAT32) EACH(d, dim) room[i * dim + d] = number(x->data, at + d, FLOAT32);
        else if (p->type == BFLOAT16) EACH(d, dim) room[i * dim + d] = number(x->data, at + d, BFLOAT16);
        else EACH(d, dim) room[i * dim + d] = number(x->data, at + d, FLOAT16);
    }
    return room;
}

/* n query rows of x, times `factor`, as panels [panels][dim][PANEL]; lanes without a query are 0. */
static void panels_of(const Tensor *x, int64_t type, int64_t at, int64_t n, int64_t dim, float factor, float *panels) {
    EACH(t, (n + PANEL - 1) / PANEL * PANEL) {
        float *lane = panels + t / PANEL * dim * PANEL + t % PANEL;
        EACH(d, dim) lane[d * PANEL] = t < n ? factor * number(x->data, at + t * x->token + d, type) : 0.0f;
    }
}

/* The next columns of a row that lie one after another, from entry `at` on, clipped to keys that exist and, if causal,
 * are not after `last`. Gives the entry behind them. */
static int64_t next_run(const Problem *p, int64_t row, int64_t at, int64_t last, Run *run) {
    int64_t whole = p->pointers[row] + p->whole[row], stop = at < whole ? whole : p->pointers[row + 1], next = at + 1;
    while (next < stop && p->columns[next] == p->columns[next - 1] + 1) next++;
    int64_t end = p->kv_start + p->kv_len;
    if (p->causal) end = SMALLER(end, last + 1);
    run->first = LARGER((int64_t)p->columns[at] * p->block, p->kv_start);
    run->count = SMALLER(((int64_t)p->columns[next - 1] + 1) * p->block, end) - run->first;
    run->partial = at >= whole;
    return next;
}

/* Take from scores [keys][row] of a panel, whose first query is token t and first key is token u, what is not kept. */
static void cut(const Problem *p, int64_t t, int64_t u, int64_t keys, int partial, float *scores, int64_t row) {
    const int64_t far = 1 << 30;
    int32_t before = SMALLER(p->before, far), after = SMALLER(p->after, far);
    EACH(i, keys) {
        int32_t distance = LARGER(-far, SMALLER(far, t - u - i));
        for (int w = 0; w < VECTORS; w++) {
            Bits from = {0};
            for (int lane = 0; lane < LANES; lane++) from[lane] = distance + w * LANES + lane;
            Bits kept = ~(Bits){0};
            if (partial && u + i >= p->sink) kept = (from < before) & (from > -after);
            if (p->causal) kept &= from >= 0;
            Vector *score = (Vector *)(scores + i * row + w * LANES), none = (Vector){0} - INFINITY;
            *score = (Vector)(((Bits)*score & kept) | ((Bits)none & ~kept));
        }
    }
}

static float *room_for(int64_t floats) { return aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64); }

/* Where the tile of queries from token t on ends: with its row, the tile's size or the last query. */
static int64_t tile_end(const Problem *p, int64_t t, int64_t last, int64_t *row) {
    int64_t i = t / p->block - (t % p->block < 0);
    *row = i - p->first_row;
    return SMALLER(SMALLER((i + 1) * p->block, t + TILE), last);
}
