/* Attention backward: weights are computed again from the LSE. */
#include "tiles.h"

/* n rows of x as fp32 [n][width], times `factor`, with zeros beyond `dim`. */
static void matrix_of(const Tensor *x, int64_t type, int64_t at, int64_t n, int64_t dim, int64_t width, float factor,
                      float *rows) {
    EACH(i, n) EACH(d, width) rows[i * width + d] = d < dim ? factor * number(x->data, at + i * x->token + d, type) : 0;
}

/* Scores [keys][TILE] of a panel become weights, and the weights' gradients, which are there without the softmax, those
 * of the scores: w * (dw - delta), and by the slope of tanh, 1 - tanh**2. */
static void weigh(const Problem *p, float *scores, float *grads, int64_t keys, const float *lse, const float *delta) {
    float unit = p->softcap ? 1 / (p->softcap * M_LOG2E) : 0;
    for (int w = 0; w < VECTORS; w++)
        EACH(i, keys) {
            Vector *score = (Vector *)(scores + i * TILE + w * LANES), *grad = (Vector *)(grads + i * TILE + w * LANES);
            Vector bent = larger(*score * unit, (Vector){0} - 1.0f); /* -inf where nothing is kept */
            *score = exp2_of(*score - *(const Vector *)(lse + w * LANES));
            *grad = *score * (*grad - *(const Vector *)(delta + w * LANES)) * (1.0f - bent * bent);
        }
}

int attn_backward(const Problem *p, int64_t batch, int64_t head, int64_t kv_head, int64_t first, int64_t last,
                  float *dk, float *dv, int64_t width, int64_t v_width) {
    int64_t dim = p->dim, v_dim = p->v_dim, size = dim * PANEL, v_size = v_dim * PANEL;
    float *room = room_for(PANELS * (2 * size + v_size) + TILE * (width + v_width) + KEYS * (dim + v_dim) +
                           2 * KEYS * TILE + 2 * TILE);
    if (!room) return 1;
    float *q_panels = room, *dout_panels = q_panels + PANELS * size, *dq_panels = dout_panels + PANELS * v_size,
          *q_rows = dq_panels + PANELS * size, *dout_rows = q_rows + TILE * width, *scores = dout_rows + TILE * v_width,
          *grads = scores + KEYS * TILE, *lse = grads + KEYS * TILE, *delta = lse + TILE, *k_room = delta + TILE,
          *v_room = k_room + KEYS * dim;
    for (int64_t t = first, row, end; t < last; t = end) {
        end = tile_end(p, t, last, &row);
        int64_t n = end - t, panels = (n + PANEL - 1) / PANEL, query = t - p->q_start;
        int64_t q_at = place(&p->q, batch, head, query), dout_at = place(&p->dout, batch, head, query);
        panels_of(&p->q, p->type, q_at, n, dim, p->scale * M_LOG2E, q_panels);
        panels_of(&p->dout, p->type, dout_at, n, v_dim, 1, dout_panels);
        matrix_of(&p->q, p->type, q_at, n, dim, width, p->scale, q_rows);
        matrix_of(&p->dout, p->type, dout_at, n, v_dim, v_width, 1, dout_rows);
        EACH(i, panels * size) dq_panels[i] = 0;
        EACH(i, TILE) lse[i] = delta[i] = 0;
        EACH(i, n) {
            int64_t at = place(&p->out, batch, head, query + i);
            EACH(d, v_dim) delta[i] += number(p->out.data, at + d, p->type) * dout_rows[i * v_width + d];
            if (p->dlse.data) delta[i] -= ((float *)p->dlse.data)[place(&p->dlse, batch, head, query + i)];
            lse[i] = ((float *)p->lse.data)[place(&p->lse, batch, head, query + i)] * (float)M_LOG2E;
            if (lse[i] == -INFINITY) lse[i] = 0; /* no key: all of its scores are -inf too */
        }
        Run run;
        for (int64_t at = p->pointers[row]; at < p->pointers[row + 1];) {
            at = next_run(p, row, at, end - 1, &run);
            for (int64_t u = run.first; u < run.first + run.count; u += KEYS) {
                int64_t count = SMALLER(KEYS, run.first + run.count - u), k_row, v_row, key = u - p->kv_start;
                const float *k = rows_of(p, &p->k, batch, kv_head, key, count, dim, k_room, &k_row);
                const float *v = rows_of(p, &p->v, batch, kv_head, key, count, v_dim, v_room, &v_row);
                int ahead = p->causal && u + count - 1 > t; /* some keys are after some queries */
                EACH(i, panels) {
                    int64_t q = t + i * PANEL, keys = count, lanes = SMALLER(PANEL, end - q);
                    if (p->causal) keys = SMALLER(keys, q + lanes - u);
                    if (keys <= 0) continue;
                    float *score = scores + i * PANEL, *grad = grads + i * PANEL;
                    product(k, k_row, 1, q_panels + i * size, PANEL, score, TILE, keys, dim, 0);
                    cap(p, keys, score, TILE);
                    if (run.partial || (p->causal && u + keys - 1 > q)) cut(p, q, u, keys, run.partial, score, TILE);
                    product(v, v_row, 1, dout_panels + i * v_size, PANEL, grad, TILE, keys, v_dim, 0);
                    weigh(p, score, grad, keys, lse + i * PANEL, delta + i * PANEL);
                    product(k, 1, k_row, grad, TILE, dq_panels + i * size, PANEL, dim, keys, 1);
                    if (!ahead && i + 1 < panels) continue; /* all panels have these keys: together, after the last */
                    int64_t from = ahead ? i * PANEL : 0, queries = ahead ? lanes : n;
                    for (int64_t d = 0; d < LARGER(width, v_width); d += PANEL) {
                        float *dk_at = dk + key * width + d, *dv_at = dv + key * v_width + d;
                        const float *q_from = q_rows + from * width + d, *dout_from = dout_rows + from * v_width + d;
                        if (d < width) product(grads + from, TILE, 1, q_from, width, dk_at, width, keys, queries, 1);
                        if (d < v_width)
                            product(scores + from, TILE, 1, dout_from, v_width, dv_at, v_width, keys, queries, 1);
                    }
                }
            }
        }
        EACH(i, n) {
            const float *grad = dq_panels + i / PANEL * size + i % PANEL;
            int64_t at = place(&p->dq, batch, head, query + i);
            EACH(d, dim) put(p->dq.data, at + d, p->type, grad[d * PANEL] * p->scale);
        }
    }
    free(room);
    return 0;
}
