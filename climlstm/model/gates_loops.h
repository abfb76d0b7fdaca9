/* The loops of gates.c, for one TYPE of convolved fields. */

/* `number` channels of one point, those from each pointer on; see forward. */
INLINE void NAME(forward_some)(
    const TYPE *z, float *c, const float *peephole, TYPE *gates, TYPE *kept, TYPE *h,
    long C, long number) {
    const vec before = read_float32(c, number);
    const vec zi = READ(z, number) + read_float32(peephole, number) * before;
    const vec zf = READ(z + C, number) + read_float32(peephole + C, number) * before;
    const quotient ti = tanh_of(0.5f * zi), tf = tanh_of(0.5f * zf);
    const quotient tg = tanh_of(READ(z + 3 * C, number));
    const vec both = ti.under * tf.under, inverse = 1.0f / (both * tg.under);
    const vec i = half(ti.over * tf.under * tg.under * inverse);
    const vec f = half(tf.over * ti.under * tg.under * inverse);
    const vec g = tg.over * both * inverse;
    const vec after = away_from_zero(f * before + i * g);
    write_float32(c, after, number);
    if (gates) {
        WRITE(gates, i, number);
        WRITE(gates + C, f, number);
        WRITE(gates + 2 * C, g, number);
    }
    if (kept)
        WRITE(kept, after, number);
    if (h) {
        const vec zo = READ(z + 2 * C, number) + read_float32(peephole + 2 * C, number) * after;
        const quotient to = tanh_of(0.5f * zo), tc = tanh_of(after);
        const vec shared = 1.0f / (to.under * tc.under);
        WRITE(h, half(to.over * tc.under * shared) * (tc.over * to.under * shared), number);
    }
}

/* z: the convolved input and hidden state. c: in, before the step; out, after it; kept: a copy.
 * gates, kept, h: written unless null. gates may be z, if h is null. */
void NAME(forward)(
    const TYPE *z, float *c, const float *peephole, TYPE *gates, TYPE *kept, TYPE *h,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, long stride_gates, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                const TYPE *zp = z + 4 * C * point;
                float *cp = c + C * point;
                TYPE *gp = gates ? gates + stride_gates * point : 0;
                TYPE *kp = kept ? kept + C * point : 0;
                TYPE *hp = h ? h + b * stride_b + y * stride_y + x * stride_x : 0;
                long k = 0;
#define FROM_K zp + k, cp + k, peephole + k, gp ? gp + k : 0, kp ? kp + k : 0, hp ? hp + k : 0
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
    const TYPE *gates, const TYPE *c, const TYPE *c_after, const TYPE *h, const TYPE *grad_h,
    const float *peephole, float *grad_c, TYPE *grad_z, float *sums, long C, long number) {
    const vec i = READ(gates, number), f = READ(gates + C, number);
    const vec g = READ(gates + 2 * C, number);
    const vec hidden = READ(h, number), dh = READ(grad_h, number);
    quotient tc = tanh_of(READ(c_after, number));
    if (number < LANES) /* what lies beyond is not used, but must not be divided by */
        tc.over = choose(tc.over == 0.0f, everywhere(1), tc.over);
    const vec inverse = 1.0f / (tc.over * tc.under);
    const vec t = tc.over * tc.over * inverse, raw = hidden * tc.under * tc.under * inverse;
    const vec o = choose(raw > everywhere(1), everywhere(1), raw);
    const vec dzo = dh * hidden * (1 - o);
    vec dc = read_float32(grad_c, number) + dh * o * (1 - t * t);
    dc += dzo * read_float32(peephole + 2 * C, number);
    const vec dzi = dc * g * i * (1 - i);
    const vec dzf = dc * READ(c, number) * f * (1 - f);
    const vec dzg = dc * i * (1 - g * g);
    const vec before = dc * f + dzi * read_float32(peephole, number) +
                       dzf * read_float32(peephole + C, number);
    write_float32(grad_c, before, number);
    WRITE(grad_z, dzi, number);
    WRITE(grad_z + C, dzf, number);
    WRITE(grad_z + 2 * C, dzo, number);
    WRITE(grad_z + 3 * C, dzg, number);
    write_float32(sums, read_float32(sums, number) + dzi, number);
    write_float32(sums + C, read_float32(sums + C, number) + dzf, number);
    write_float32(sums + 2 * C, read_float32(sums + 2 * C, number) + dzo, number);
    write_float32(sums + 3 * C, read_float32(sums + 3 * C, number) + dzg, number);
}

/* h: after the step. grad_c: in, with respect to the cell state after it; out, before it.
 * sums (threads, 4 C): each thread adds the grad_z of its points to its own. grad_z may be gates. */
void NAME(backward)(
    const TYPE *gates, const TYPE *c, const TYPE *c_after, const TYPE *h, const TYPE *grad_h,
    const float *peephole, float *grad_c, TYPE *grad_z, float *sums,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, long stride_gates, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            float *own = sums + 4 * C * omp_get_thread_num();
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                const long inside = b * stride_b + y * stride_y + x * stride_x;
                const TYPE *gp = gates + stride_gates * point, *hp = h + inside, *dh = grad_h + inside;
                const TYPE *cp = c + C * point, *cn = c_after + C * point;
                float *dc = grad_c + C * point;
                TYPE *dz = grad_z + 4 * C * point;
                long k = 0;
#define FROM_K gp + k, cp + k, cn + k, hp + k, dh + k, peephole + k, dc + k, dz + k, own + k
                for (; k + LANES <= C; k += LANES)
                    NAME(backward_some)(FROM_K, C, LANES);
                if (k < C)
                    NAME(backward_some)(FROM_K, C, C - k);
#undef FROM_K
            }
        }
    }
}
