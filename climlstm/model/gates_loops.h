/* The loops of gates.c, for one TYPE of convolved fields. */

/* z: in, the convolved input and hidden state; out, the gates. c: in, before the step; out, after it; kept: a copy. */
void NAME(forward)(
    TYPE *restrict z, float *restrict c, const float *restrict peephole,
    TYPE *restrict kept, TYPE *restrict h,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                TYPE *restrict zp = z + 4 * C * point;
                float *restrict cp = c + C * point;
                TYPE *restrict kp = kept + C * point;
                TYPE *restrict hp = h + b * stride_b + y * stride_y + x * stride_x;
#pragma omp simd
                for (long k = 0; k < C; k++) {
                    float zi = READ(zp[k]), zf = READ(zp[C + k]);
                    float zo = READ(zp[2 * C + k]);
                    const float zg = READ(zp[3 * C + k]);
                    zi += peephole[k] * cp[k];
                    zf += peephole[C + k] * cp[k];
                    const float i = sigmoid_of(zi), f = sigmoid_of(zf), g = tanh_of(zg);
                    const float after = f * cp[k] + i * g;
                    zo += peephole[2 * C + k] * after;
                    const float o = sigmoid_of(zo);
                    zp[k] = WRITE(i);
                    zp[C + k] = WRITE(f);
                    zp[2 * C + k] = WRITE(o);
                    zp[3 * C + k] = WRITE(g);
                    cp[k] = after;
                    kp[k] = WRITE(after);
                    hp[k] = WRITE(o * tanh_of(after));
                }
            }
        }
    }
}

/* grad_c: in, with respect to the cell state after the step; out, before it. */
void NAME(backward)(
    const TYPE *restrict gates, const TYPE *restrict c, const TYPE *restrict c_after,
    const TYPE *restrict grad_h, const float *restrict peephole,
    float *restrict grad_c, TYPE *restrict grad_z,
    long batch, long rows, long columns, long C,
    long stride_b, long stride_y, long stride_x, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
    for (long b = 0; b < batch; b++) {
        for (long y = 0; y < rows; y++) {
            for (long x = 0; x < columns; x++) {
                const long point = (b * rows + y) * columns + x;
                const TYPE *restrict gp = gates + 4 * C * point;
                TYPE *restrict gz = grad_z + 4 * C * point;
                const TYPE *restrict cp = c + C * point;
                const TYPE *restrict cn = c_after + C * point;
                float *restrict gc = grad_c + C * point;
                const TYPE *restrict gh = grad_h + b * stride_b + y * stride_y + x * stride_x;
#pragma omp simd
                for (long k = 0; k < C; k++) {
                    const float i = READ(gp[k]), f = READ(gp[C + k]);
                    const float o = READ(gp[2 * C + k]), g = READ(gp[3 * C + k]);
                    const float t = tanh_of(READ(cn[k])), dh = READ(gh[k]);
                    const float dzo = dh * t * o * (1 - o);
                    float dc = gc[k] + dh * o * (1 - t * t);
                    dc += dzo * peephole[2 * C + k];
                    const float dzi = dc * g * i * (1 - i);
                    const float dzf = dc * READ(cp[k]) * f * (1 - f);
                    gz[k] = WRITE(dzi);
                    gz[C + k] = WRITE(dzf);
                    gz[2 * C + k] = WRITE(dzo);
                    gz[3 * C + k] = WRITE(dc * i * (1 - g * g));
                    float before = dc * f;
                    before += dzi * peephole[k] + dzf * peephole[C + k];
                    gc[k] = before;
                }
            }
        }
    }
}
