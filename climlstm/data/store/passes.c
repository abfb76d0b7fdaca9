/* What is done to every value of a cube, in one pass over memory each; called by passes.py.
 *
 * Fields are (step, row, column) of float32 with neighbouring columns side by side; `_step` and
 * `_row` are strides in elements.
 */
#include <stdint.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define LANES 16
#define STREAM(to, value) _mm512_stream_ps(to, (__m512)(value))
#define FENCE() _mm_sfence()
#elif defined(__AVX__)
#include <immintrin.h>
#define LANES 8
#define STREAM(to, value) _mm256_stream_ps(to, (__m256)(value))
#define FENCE() _mm_sfence()
#else
#define LANES 4
#define STREAM(to, value) (*(vec *)(to) = (value))
#define FENCE()
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

#define EXPONENT 0x7f800000

static inline int is_finite(float x) {
    union { float value; int32_t bits; } x_ = {x};
    return (x_.bits & EXPONENT) != EXPONENT;
}

/* out = (in - mean) / std, 0 where `hidden` (row, column; or null) is set; whether all of it is
 * finite. What is written goes past the processor's cache, since whole blocks do not fit into it. */
int normalise(
    const float *in, long in_step, long in_row, float *out, long out_step, long out_row,
    long steps, long rows, long columns, float mean, float std, const uint8_t *hidden) {
    ints bad = {0};
    int odd = 0;
    for (long t = 0; t < steps; t++) {
        for (long y = 0; y < rows; y++) {
            const float *from = in + t * in_step + y * in_row;
            float *to = out + t * out_step + y * out_row;
            const uint8_t *no = hidden ? hidden + y * columns : 0;
            long x = 0;
            if (!no) {
                for (; x < columns && (uintptr_t)(to + x) % (4 * LANES); x++) {
                    to[x] = (from[x] - mean) / std;
                    odd |= !is_finite(to[x]);
                }
                for (; x + LANES <= columns; x += LANES) {
                    const vec value = (*(const loose *)(from + x) - mean) / std;
                    bad |= ((ints)value & EXPONENT) == EXPONENT;
                    STREAM(to + x, value);
                }
            }
            for (; x < columns; x++) {
                to[x] = no && no[x] ? 0.0f : (from[x] - mean) / std;
                odd |= !is_finite(to[x]);
            }
        }
    }
    FENCE();
    for (int k = 0; k < LANES; k++)
        odd |= bad[k];
    return !odd;
}

typedef double wide __attribute__((vector_size(8 * LANES)));
#define WIDE(v) __builtin_convertvector(v, wide)

/* By row, sums of `in - shift` and of its squares and, of changes from each step to the next, of
 * the changes and their squares: added to the four fields (row) of `sums`. */
void moments(
    const float *in, long in_step, long in_row, long steps, long rows, long columns, float shift,
    double *sums) {
    for (long y = 0; y < rows; y++) {
        wide found[4] = {{0}};
        double rest[4] = {0};
        for (long t = 0; t < steps; t++) {
            const float *now = in + t * in_step + y * in_row;
            const float *before = t ? now - in_step : now; /* at first a change of nothing */
            vec s = {0}, q = {0}, ds = {0}, dq = {0};
            long x = 0;
            for (; x + LANES <= columns; x += LANES) {
                const vec value = *(const loose *)(now + x);
                const vec deviation = value - shift, change = value - *(const loose *)(before + x);
                s += deviation, q += deviation * deviation;
                ds += change, dq += change * change;
            }
            found[0] += WIDE(s), found[1] += WIDE(q), found[2] += WIDE(ds), found[3] += WIDE(dq);
            for (; x < columns; x++) {
                const float deviation = now[x] - shift, change = now[x] - before[x];
                rest[0] += deviation, rest[1] += deviation * deviation;
                rest[2] += change, rest[3] += change * change;
            }
        }
        for (int k = 0; k < 4; k++) {
            for (int lane = 0; lane < LANES; lane++)
                rest[k] += found[k][lane];
            sums[k * rows + y] += rest[k];
        }
    }
}
