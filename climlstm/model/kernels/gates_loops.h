/* The loops of gates.c, for one TYPE of convolved fields. */

/* The gates i and f from their convolved fields, rounded to TYPE. */
INLINE void NAME(open_some)(
    vec zi, vec zf, vec c, const float *peephole, long C, long number, vec *i, vec *f) {
    zi += read_float32(peephole, number) * c;
    zf += read_float32(peephole + C, number) * c;
    const quotient ti = tanh_of(0.5f * zi), tf = tanh_of(0.5f * zf);
    const vec inverse = 1.0f / (ti.under * tf.under);
    *i = ROUND(half(ti.over * tf.under * inverse));
    *f = ROUND(half(tf.over * ti.under * inverse));
}

/* `number` channels of one point, those from each pointer on; see forward. */
INLINE void NAME(forward_some)(
    const TYPE *z, const float *c, const float *peephole, float *c_after, TYPE *gates, TYPE *h,
    long C, long number) {
    const vec before = read_float32(c, number);
    const quotient tg = tanh_of(READ(z + 3 * C, number));
    vec i, f;
    NAME(open_some)(READ(z, number), READ(z + C, number), before, peephole, C, number, &i, &f);
    const vec after = away_from_zero(f * before + i * (tg.over / tg.under));
    write_float32(c_after, after, number);
    if (gates) {
        WRITE(gates, i, number);
        WRITE(gates + C, f, number);
    }
    const vec zo = READ(z + 2 * C, number) + read_float32(peephole + 2 * C, number) * after;
    const quotient to = tanh_of(0.5f * zo), tc = tanh_of(after);
    const vec shared = 1.0f / (to.under * tc.under);
    WRITE(h, half(to.over * tc.under * shared) * (tc.over * to.under * shared), number);
}

/* z: the convolved input and hidden state. c, c_after: the cell state before and after the step; they may
 * be one. gates: written unless null. */
void NAME(forward)(
    const TYPE *z, const float *c, const float *peephole, float *c_after, TYPE *gates, TYPE *h,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                const TYPE *zp = z + 4 * C * point;
                const float *cp = c + C * point;
                float *cn = c_after + C * point;
                TYPE *gp = gates ? gates + 2 * C * point : 0;
                TYPE *hp = h + b * stride_b + y * stride_y + x * stride_x;
                long k = 0;
#define FROM_K zp + k, cp + k, peephole + k, cn + k, gp ? gp + k : 0, hp + k
                for (; k + LANES <= C; k += LANES)
                    NAME(forward_some)(FROM_K, C, LANES);
                if (k < C)
                    NAME(forward_some)(FROM_K, C, C - k);
#undef FROM_K
            }
        }
    }
}

/* `number` channels of one point, those from each pointer on; see backward. */
INLINE void NAME(backward_some)(
    const TYPE *gates, const float *c, const float *c_after, const TYPE *h, const TYPE *grad_h,
    const float *peephole, float *grad_c, TYPE *grad_z, float *sums, int opened, long C, long number) {
    const vec before = read_float32(c, number), after = read_float32(c_after, number);
    const vec hidden = READ(h, number), dh = READ(grad_h, number);
    vec i = READ(gates, number), f = READ(gates + C, number);
    if (!opened)
        NAME(open_some)(i, f, before, peephole, C, number, &i, &f);
    quotient tc = tanh_of(after);
    if (number < LANES) /* what lies beyond is not used, but must not be divided by */
        tc.over = choose(tc.over == 0.0f, everywhere(1), tc.over);
    const ints is_open = i > everywhere(0);
    const vec divisor = choose(is_open, i, everywhere(1)), product = tc.over * tc.under;
    const vec shared = 1.0f / (product * divisor), inverse = shared * divisor;
    /* `_candidate` in gates.py */
    const vec added = after - f * before;
    const vec g = choose(is_open, clamp(added * (shared * product), 1), everywhere(0));
    const vec t = tc.over * tc.over * inverse, raw = hidden * tc.under * tc.under * inverse;
    const vec o = choose(raw > everywhere(1), everywhere(1), raw);
    const vec dzo = dh * hidden * (1 - o);
    vec dc = read_float32(grad_c, number) + dh * o * (1 - t * t);
    dc += dzo * read_float32(peephole + 2 * C, number);
    const vec dzi = dc * g * i * (1 - i);
    const vec dzf = dc * before * f * (1 - f);
    const vec dzg = dc * i * (1 - g * g);
    const vec dc_before = dc * f + dzi * read_float32(peephole, number) +
                          dzf * read_float32(peephole + C, number);
    write_float32(grad_c, dc_before, number);
    WRITE(grad_z, dzi, number);
    WRITE(grad_z + C, dzf, number);
    WRITE(grad_z + 2 * C, dzo, number);
    WRITE(grad_z + 3 * C, dzg, number);
    write_float32(sums, read_float32(sums, number) + dzi, number);
    write_float32(sums + C, read_float32(sums + C, number) + dzf, number);
    write_float32(sums + 2 * C, read_float32(sums + 2 * C, number) + dzo, number);
    write_float32(sums + 3 * C, read_float32(sums + 3 * C, number) + dzg, number);
}

/* gates: i and f if opened, else their convolved fields. grad_c: in, with respect to the cell state
 * after the step; out, before it. sums (threads, 4 C): each thread adds the grad_z of its points to its
 * own. */
void NAME(backward)(
    const TYPE *gates, const float *c, const float *c_after, const TYPE *h, const TYPE *grad_h,
    const float *peephole, float *grad_c, TYPE *grad_z, float *sums, int opened,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            float *own = sums + 4 * C * omp_get_thread_num();
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                const long inside = b * stride_b + y * stride_y + x * stride_x;
                const TYPE *gp = gates + 2 * C * point, *hp = h + inside, *dh = grad_h + inside;
                const float *cp = c + C * point, *cn = c_after + C * point;
                float *dc = grad_c + C * point;
                TYPE *dz = grad_z + 4 * C * point;
                long k = 0;
#define FROM_K gp + k, cp + k, cn + k, hp + k, dh + k, peephole + k, dc + k, dz + k, own + k
                for (; k + LANES <= C; k += LANES)
                    NAME(backward_some)(FROM_K, opened, C, LANES);
                if (k < C)
                    NAME(backward_some)(FROM_K, opened, C, C - k);
#undef FROM_K
            }
        }
    }
}
