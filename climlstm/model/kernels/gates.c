/* The gates and the state update of a ConvLSTM in one pass over memory, forward and backward.
 *
 * The same as `plain_forward` and `plain_backward` in gates.py, which say what is computed; built and
 * called by choice.py. Channels lie side by side: z and grad_z are (B, H, W, 4 C) with the channels of
 * i, f, o, g one after another, gates (B, H, W, 2 C) with those of i and f, the other fields
 * (B, H, W, C). The hidden state and its gradient lie inside a wider field, with `stride_b`, `stride_y`,
 * `stride_x` between neighbours. peephole is (3, C), zeros where there is none.
 *
 * Written in the vector types of gcc and clang: the quotients of several gates share one division,
 * which compilers do not do by themselves, and takes longer than all else.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

#define INLINE static inline __attribute__((always_inline))

/* a where the mask is set, b elsewhere. */
INLINE vec choose(ints mask, vec a, vec b) { return (vec)((mask & (ints)a) | (~mask & (ints)b)); }

INLINE vec everywhere(float value) { return (vec){0} + value; }

/* x between -limit and limit; a NaN stays one. */
INLINE vec clamp(vec x, float limit) {
#ifdef __AVX512F__
    x = (vec)_mm512_min_ps(_mm512_set1_ps(limit), (__m512)x);
    return (vec)_mm512_max_ps(_mm512_set1_ps(-limit), (__m512)x);
#else
    x = choose(x > everywhere(limit), everywhere(limit), x);
    return choose(x < everywhere(-limit), everywhere(-limit), x);
#endif
}

/* A quotient whose division is still to be done. */
typedef struct {
    vec over, under;
} quotient;

/* tanh(x) = x P(x^2) / Q(x^2) within a relative error of 4e-7, by the coefficients that
 * benchmarks/tanh.py derives and prints; an infinite argument gives 1, and a NaN stays one. */
INLINE quotient tanh_of(vec x) {
    x = clamp(x, 8.0f);
    const vec s = x * x;
    vec p = 1.52924522e-08f * s + 2.19391177e-05f;
    p = p * s + 0.00357431292f;
    p = p * s + 0.13446795f;
    p = p * s + 1.0f;
    vec q = 8.54769074e-07f * s + 0.000341571795f;
    q = q * s + 0.0261748023f;
    q = q * s + 0.467801243f;
    q = q * s + 1.0f;
    return (quotient){x * p, q};
}

/* sigmoid(x) = half(tanh(x / 2)) */
INLINE vec half(vec x) { return 0.5f + 0.5f * x; }

/* The smallest cell state, in magnitude: TINY in gates.py. */
INLINE vec away_from_zero(vec c) {
    return choose((vec)((ints)c & 0x7fffffff) < everywhere(1e-20f), everywhere(1e-20f), c);
}

/* Up to LANES numbers; zeros beyond `number`. */
INLINE vec read_float32(const float *from, long number) {
    vec x = {0};
    memcpy(&x, from, 4 * number);
    return x;
}

INLINE void write_float32(float *to, vec x, long number) { memcpy(to, &x, 4 * number); }

INLINE vec read_bfloat16(const uint16_t *from, long number) {
    halves x = {0};
    memcpy(&x, from, 2 * number);
#ifdef __AVX512F__
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)x), 16);
#else
    return (vec)(__builtin_convertvector(x, bits) << 16);
#endif
}

/* To the nearest, ties to even; a NaN stays one. */
INLINE void write_bfloat16(uint16_t *to, vec x, long number) {
#ifdef __AVX512BF16__
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
#else
    const bits given = (bits)x, up = (given + 0x7fffu + ((given >> 16) & 1u)) >> 16;
    const bits is_nan = (bits)(x != x);
    const halves rounded = __builtin_convertvector((is_nan & 0x7fc0u) | (~is_nan & up), halves);
#endif
    memcpy(to, &rounded, 2 * number);
}

INLINE vec round_float32(vec x) { return x; }

INLINE vec round_bfloat16(vec x) {
    uint16_t rounded[LANES];
    write_bfloat16(rounded, x, LANES);
    return read_bfloat16(rounded, LANES);
}

#define TYPE float
#define NAME(name) name##_float32
#define READ read_float32
#define WRITE write_float32
#define ROUND round_float32
#include "gates_loops.h"
#undef TYPE
#undef NAME
#undef READ
#undef WRITE
#undef ROUND

#define TYPE uint16_t
#define NAME(name) name##_bfloat16
#define READ read_bfloat16
#define WRITE write_bfloat16
#define ROUND round_bfloat16
#include "gates_loops.h"
