/* The gates and the state update of a ConvLSTM in one pass over memory, forward and backward.
 *
 * The same as `plain_forward` and `plain_backward` in gates.py, which say what is computed; built and
 * called by kernel.py. Channels lie side by side: z, gates and grad_z are (B, H, W, 4 C) with the
 * channels of i, f, o, g one after another, the other fields (B, H, W, C). The hidden state and its gradient
 * lie inside a wider field, with `stride_b`, `stride_y`, `stride_x` elements between neighbours.
 * peephole is (3, C), zeros where there is none: a branch would keep compilers from vectorising.
 */
#include <stdint.h>
#include <string.h>

/* tanh by the rational minimax approximation of Eigen (generic_fast_tanh_float, MPL 2.0), within
 * 4e-7; an infinite argument gives 1, and a NaN stays one. */
static inline float tanh_of(float x) {
    x = x > 7.90531f ? 7.90531f : x;
    x = x < -7.90531f ? -7.90531f : x;
    const float s = x * x;
    float p = -2.76076847742355e-16f;
    p = p * s + 2.00018790482477e-13f;
    p = p * s - 8.60467152213735e-11f;
    p = p * s + 5.12229709037114e-08f;
    p = p * s + 1.48572235717979e-05f;
    p = p * s + 6.37261928875436e-04f;
    p = p * s + 4.89352455891786e-03f;
    float q = 1.19825839466702e-06f;
    q = q * s + 1.18534705686654e-04f;
    q = q * s + 2.26843463243900e-03f;
    q = q * s + 4.89352518554385e-03f;
    return x * p / q;
}

static inline float sigmoid_of(float x) { return 0.5f + 0.5f * tanh_of(0.5f * x); }

static inline float read_bfloat16(uint16_t value) {
    const uint32_t bits = (uint32_t)value << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* To the nearest, ties to even; a NaN stays one. */
static inline uint16_t write_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0u : bits);
}

static inline float read_float32(float value) { return value; }
static inline float write_float32(float x) { return x; }

#define TYPE float
#define NAME(name) name##_float32
#define READ read_float32
#define WRITE write_float32
#include "gates_loops.h"
#undef TYPE
#undef NAME
#undef READ
#undef WRITE

#define TYPE uint16_t
#define NAME(name) name##_bfloat16
#define READ read_bfloat16
#define WRITE write_bfloat16
#include "gates_loops.h"
