/* A small attention, forward and backward, by the kernels and once more in double, one pair of tokens at a time: a
 * compiler that makes other numbers of it is not to be trusted with a large one. */
#include "problem.h"

enum { DIM = 21, V_DIM = 13, WIDTH = 32, V_WIDTH = 16, BLOCK = 16, START = 20, QUERIES = 70, ALL = 90, ROWS = 5, FIRST_ROW = 1, MOST = 6 };
typedef struct {
    double truth[ALL * DIM];
    float data[ALL * DIM]; /* room for every type */
} Array;

/* Whether the columns of row i keep j: whole (1), in part (2), or not. One row keeps nothing. */
static int kind(int64_t i, int64_t j) { return i == 3 || j > i ? 0 : (i + j) % 3 == 0 ? 1 : j == 0 || i - j < 2 ? 2 : 0; }

static int kept(const Problem *p, int64_t t, int64_t u) {
    int how = kind(t / BLOCK, u / BLOCK);
    return u <= t && (how == 1 || (how == 2 && (t - u < p->before || u < p->sink)));
}

static Tensor drawn(Array *x, int64_t type, int64_t tokens, int64_t dim, uint32_t seed) {
    EACH(n, tokens * dim) {
        seed = seed * 1664525 + 1013904223;
        put(x->data, n, type, (float)(seed >> 8) / (1 << 22) - 2);
        x->truth[n] = number(x->data, n, type);
    }
    return (Tensor){x->data, 0, 0, dim};
}

/* Whether numbers of this type, [tokens][row], differ from the true ones [tokens][dim] by more than `most`. */
static int is_off(const void *data, int64_t row, int64_t type, const double *truth, int64_t tokens, int64_t dim,
                  double most) {
    double error = 0, size = 0;
    EACH(i, tokens) EACH(d, dim) {
        double found = number(data, i * row + d, type), x = truth[i * dim + d];
        if (isinf(x) ? found == x : 0) continue;
        error += (found - x) * (found - x), size += x * x;
    }
    return !(error <= most * most * size); /* also where it is NaN */
}

static int is_wrong(int64_t type) {
    static const double scale = 0.3;
    Array q = {0}, k = {0}, v = {0}, dout = {0}, out = {0}, dq = {0}, dlse = {0}, lse = {0};
    double dk_true[ALL * DIM] = {0}, dv_true[ALL * V_DIM] = {0};
    float dk[ALL * WIDTH] = {0}, dv[ALL * V_WIDTH] = {0};
    int64_t pointers[ROWS + 1] = {0};
    int32_t whole[ROWS] = {0}, columns[ROWS * MOST];
    EACH(i, ROWS) {
        int64_t at = pointers[i];
        for (int how = 1; how <= 2; how++)
            EACH(j, MOST) if (kind(i + FIRST_ROW, j) == how) columns[at++] = (int32_t)j, whole[i] += how == 1;
        pointers[i + 1] = at;
    }
    Tensor one = {lse.data, 0, 0, 1}, weight = {dlse.data, 0, 0, 1};
    Problem p = {drawn(&q, type, QUERIES, DIM, 1), drawn(&k, type, ALL, DIM, 2), drawn(&v, type, ALL, V_DIM, 3),
                 {out.data, 0, 0, V_DIM}, one, drawn(&dout, type, QUERIES, V_DIM, 4), weight, {dq.data, 0, 0, DIM}, type,
                 DIM, V_DIM, BLOCK, 1, START, QUERIES, 0, ALL, 21, 1, 5, FIRST_ROW, 0, pointers, whole, columns, NULL,
                 scale, 0};
    drawn(&dlse, FLOAT32, QUERIES, 1, 5);
    EACH(i, QUERIES) {
        double weights[ALL] = {0}, most = -INFINITY, total = 0, delta = -dlse.truth[i];
        EACH(u, ALL) if (kept(&p, START + i, u)) {
            EACH(d, DIM) weights[u] += scale * q.truth[i * DIM + d] * k.truth[u * DIM + d];
            most = LARGER(most, weights[u]);
        }
        EACH(u, ALL) total += weights[u] = kept(&p, START + i, u) ? exp(weights[u] - most) : 0;
        lse.truth[i] = total > 0 ? most + log(total) : -INFINITY;
        EACH(u, ALL) EACH(d, V_DIM) if (weights[u] > 0)
            out.truth[i * V_DIM + d] += weights[u] / total * v.truth[u * V_DIM + d];
        EACH(d, V_DIM) delta += out.truth[i * V_DIM + d] * dout.truth[i * V_DIM + d];
        EACH(u, ALL) if (weights[u] > 0) {
            double share = weights[u] / total, grad = -delta;
            EACH(d, V_DIM) {
                grad += dout.truth[i * V_DIM + d] * v.truth[u * V_DIM + d];
                dv_true[u * V_DIM + d] += share * dout.truth[i * V_DIM + d];
            }
            EACH(d, DIM) {
                dk_true[u * DIM + d] += scale * share * grad * q.truth[i * DIM + d];
                dq.truth[i * DIM + d] += scale * share * grad * k.truth[u * DIM + d];
            }
        }
    }
    double most = type == FLOAT32 ? 1e-5 : type == FLOAT16 ? 4e-3 : 3e-2; /* some roundings of the output */
    return attn_forward(&p, 0, 0, 0, START, ALL) || is_off(out.data, V_DIM, type, out.truth, QUERIES, V_DIM, most) ||
           is_off(lse.data, 1, FLOAT32, lse.truth, QUERIES, 1, most) ||
           attn_backward(&p, 0, 0, 0, START, ALL, dk, dv, WIDTH, V_WIDTH) ||
           is_off(dq.data, DIM, type, dq.truth, QUERIES, DIM, most) ||
           is_off(dk, WIDTH, FLOAT32, dk_true, ALL, DIM, most) ||
           is_off(dv, V_WIDTH, FLOAT32, dv_true, ALL, V_DIM, most);
}

int attn_trial(void) {
    int wrong = 0;
    for (int type = FLOAT32; type <= FLOAT16; type++)
        if (attn_types() >> type & 1 && is_wrong(type)) wrong |= 1 << type;
    return wrong;
}
