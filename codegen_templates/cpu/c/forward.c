/* Attention forward: output and LSE, with the online softmax. */
#include "tiles.h"

/* The softmax of more keys: scores become weights, and what was summed so far is brought to the new maximum. */
static void soften(float *scores, int64_t keys, float *largest, float *total, float *out, int64_t dim) {
    for (int w = 0; w < VECTORS; w++) {
        Vector *sum = (Vector *)(total + w * LANES), *most = (Vector *)(largest + w * LANES), old = *most;
        EACH(i, keys) *most = larger(*(Vector *)(scores + i * PANEL + w * LANES), *most);
        Bits none = *most == -INFINITY;
        Vector base = (Vector)((Bits)*most & ~none), weight = exp2_of(old - base), more = {0};
        EACH(i, keys) {
            Vector *score = (Vector *)(scores + i * PANEL + w * LANES);
            *score = exp2_of(*score - base);
            more += *score;
        }
        *sum = *sum * weight + more;
        EACH(d, dim) *(Vector *)(out + d * PANEL + w * LANES) *= weight;
    }
}

int attn_forward(const Problem *p, int64_t batch, int64_t head, int64_t kv_head, int64_t first, int64_t last) {
    int64_t dim = p->dim, v_dim = p->v_dim, size = dim * PANEL, v_size = v_dim * PANEL;
    float *room = room_for(PANELS * (size + v_size) + KEYS * (dim + v_dim) + KEYS * PANEL + 2 * TILE);
    if (!room) return 1;
    float *queries = room, *sums = queries + PANELS * size, *scores = sums + PANELS * v_size,
          *largest = scores + KEYS * PANEL, *totals = largest + TILE, *k_room = totals + TILE,
          *v_room = k_room + KEYS * dim;
    for (int64_t t = first, row, end; t < last; t = end) {
        end = tile_end(p, t, last, &row);
        int64_t n = end - t, panels = (n + PANEL - 1) / PANEL;
        panels_of(&p->q, p->type, place(&p->q, batch, head, t - p->q_start), n, dim, p->scale * M_LOG2E, queries);
        EACH(i, panels * v_size) sums[i] = 0;
        EACH(i, TILE) largest[i] = -INFINITY, totals[i] = 0;
        Run run;
        for (int64_t at = p->pointers[row]; at < p->pointers[row + 1];) {
            at = next_run(p, row, at, end - 1, &run);
            for (int64_t u = run.first; u < run.first + run.count; u += KEYS) {
                int64_t count = SMALLER(KEYS, run.first + run.count - u), k_row, v_row, key = u - p->kv_start;
                const float *k = rows_of(p, &p->k, batch, kv_head, key, count, dim, k_room, &k_row);
                const float *v = rows_of(p, &p->v, batch, kv_head, key, count, v_dim, v_room, &v_row);
                EACH(i, panels) {
                    int64_t q = t + i * PANEL, keys = count;
                    if (p->causal) keys = SMALLER(keys, SMALLER(q + PANEL, end) - u);
                    if (keys <= 0) continue;
                    product(k, k_row, 1, queries + i * size, PANEL, scores, PANEL, keys, dim, 0);
                    cap(p, keys, scores, PANEL);
                    if (run.partial || (p->causal && u + keys - 1 > q)) cut(p, q, u, keys, run.partial, scores, PANEL);
                    soften(scores, keys, largest + i * PANEL, totals + i * PANEL, sums + i * v_size, v_dim);
                    product(v, 1, v_row, scores, PANEL, sums + i * v_size, PANEL, v_dim, keys, 1);
                }
            }
        }
        EACH(i, n) {
            float *sum = sums + i / PANEL * v_size + i % PANEL, total = totals[i], share = total == 0 ? 0 : 1 / total;
            int64_t at = place(&p->out, batch, head, t + i - p->q_start);
            EACH(d, v_dim) put(p->out.data, at + d, p->type, sum[d * PANEL] * share);
            ((float *)p->lse.data)[place(&p->lse, batch, head, t + i - p->q_start)] =
                total == 0 ? -INFINITY : (largest[i] + log2f(total)) * (float)M_LN2;
        }
    }
    free(room);
    return 0;
}

int attn_types(void) {
#ifdef __FLT16_MANT_DIG__
    return 1 << FLOAT32 | 1 << BFLOAT16 | 1 << FLOAT16;
#else
    return 1 << FLOAT32 | 1 << BFLOAT16;
#endif
}
