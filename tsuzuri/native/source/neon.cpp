// Arm with the dot product (Armv8.2-A: Cortex-A76, Neoverse N1, Apple A12 and later): `sdot` with one lane of the activations
// meets four inputs of four rows.
#include <arm_neon.h>

#include "kernels.h"
#define LANES 4

namespace tsuzuri {
namespace neon {
#include "lanes.h"

static void prepare(int32_t format, const float* x, int64_t k, uint8_t* column) {
    if (format == F32 || format == BF16) {
        if ((const uint8_t*)x != column) memcpy(column, x, (size_t)k * 4);
        return;
    }
    int8_t* q = (int8_t*)column;
    float* scales = (float*)(column + 2 * k);
    int32_t* corrections = (int32_t*)(column + 2 * k + k / GROUP * 4);
    for (int64_t g = 0; g < k / GROUP; g++) {
        const float* p = x + g * GROUP;
        float32x4_t top = vdupq_n_f32(0), odd = top;
        for (int i = 0; i < GROUP; i += 4) {
            const float32x4_t v = vld1q_f32(p + i);
            top = vmaxnmq_f32(top, vabsq_f32(v));
            odd = vaddq_f32(odd, vsubq_f32(v, v));
        }
        if (!(vaddvq_f32(odd) == 0)) {  // NaN or infinity: the whole group becomes NaN, never a number that looks right
            memset(q + g * GROUP, 0, GROUP);
            scales[g] = NAN;
            corrections[g] = 0;
            if (format == Q8_16) memset(column + finer(k) + g * GROUP, 0, GROUP);
            continue;
        }
        const float largest = vmaxvq_f32(top), factor = largest > 0 ? 127.0f / largest : 0.0f;
        scales[g] = largest / 127.0f;
        int32x4_t total = vdupq_n_s32(0);
        for (int i = 0; i < GROUP; i += 8) {
            float32x4_t x = vmulq_n_f32(vld1q_f32(p + i), factor), y = vmulq_n_f32(vld1q_f32(p + i + 4), factor);
            asm("" : "+w"(x), "+w"(y));
            const int32x4_t a = vcvtnq_s32_f32(x), b = vcvtnq_s32_f32(y);
            total = vaddq_s32(total, vaddq_s32(a, b));
            vst1_s8(q + g * GROUP + i, vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b))));
            if (format == Q8_16) {
                const int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vsubq_f32(x, vcvtq_f32_s32(a)), FINER));
                const int32x4_t d = vcvtnq_s32_f32(vmulq_n_f32(vsubq_f32(y, vcvtq_f32_s32(b)), FINER));
                vst1_s8((int8_t*)column + finer(k) + g * GROUP + i, vqmovn_s16(vcombine_s16(vqmovn_s32(c), vqmovn_s32(d))));
            }
        }
        corrections[g] = format == Q4 ? -8 * vaddvq_s32(total) : 0;
    }
}

// Four inputs of 16 rows: w holds 4 × 16 bytes, q four activations in each of its lanes.
#define FOUR(part, w, q, lane)                          \
    part[0] = vdotq_laneq_s32(part[0], (w)[0], q, lane); \
    part[1] = vdotq_laneq_s32(part[1], (w)[1], q, lane); \
    part[2] = vdotq_laneq_s32(part[2], (w)[2], q, lane); \
    part[3] = vdotq_laneq_s32(part[3], (w)[3], q, lane);

struct Rows {
    int8x16_t v[4];
    int8x16_t operator[](int i) const { return v[i]; }
};
static inline Rows rows(const uint8_t* w) {
    const int8_t* p = (const int8_t*)w;
    return {{vld1q_s8(p), vld1q_s8(p + 16), vld1q_s8(p + 32), vld1q_s8(p + 48)}};
}
static inline Rows low(const Rows& r) {
    Rows out;
    for (int i = 0; i < 4; i++) out.v[i] = vandq_s8(r.v[i], vdupq_n_s8(15));
    return out;
}
static inline Rows high(const Rows& r) {
    Rows out;
    for (int i = 0; i < 4; i++) out.v[i] = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(r.v[i]), 4));
    return out;
}

template <int C>
static void tile_narrow(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const int64_t groups = k / GROUP;
    const uint8_t* w = block + scales_bytes(k);
    float32x4_t total[C][4];
    for (int c = 0; c < C; c++)
        for (int i = 0; i < 4; i++) total[c][i] = vdupq_n_f32(0);
    for (int64_t g = 0; g < groups; g++) {
        int32x4_t part[C][4];
        int8x16_t q[C][2];
        for (int c = 0; c < C; c++) {
            const uint8_t* column = columns + c * stride;
            q[c][0] = vld1q_s8((const int8_t*)column + g * GROUP);
            q[c][1] = vld1q_s8((const int8_t*)column + g * GROUP + 16);
            for (int i = 0; i < 4; i++) part[c][i] = vdupq_n_s32(((const int32_t*)(column + 2 * k + groups * 4))[g]);
        }
        if (format == Q8) {
#define STEP(s, half, lane)                                   \
    {                                                         \
        const Rows r = rows(w + 64 * (s));                    \
        for (int c = 0; c < C; c++) { FOUR(part[c], r, q[c][half], lane) } \
    }
            STEP(0, 0, 0) STEP(1, 0, 1) STEP(2, 0, 2) STEP(3, 0, 3) STEP(4, 1, 0) STEP(5, 1, 1) STEP(6, 1, 2) STEP(7, 1, 3)
#undef STEP
            w += 512;
        } else {
#define STEP(s)                                               \
    {                                                         \
        const Rows both = rows(w + 64 * (s)), a = low(both), b = high(both); \
        for (int c = 0; c < C; c++) {                         \
            FOUR(part[c], a, q[c][0], s)                      \
            FOUR(part[c], b, q[c][1], s)                      \
        }                                                     \
    }
            STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
            w += 256;
        }
        for (int i = 0; i < 4; i++) {
            const float32x4_t d = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)(block + g * 32 + i * 8))));
            for (int c = 0; c < C; c++) {
                const float e = ((const float*)(columns + c * stride + 2 * k))[g];
                total[c][i] = vfmaq_f32(total[c][i], vcvtq_f32_s32(part[c][i]), vmulq_n_f32(d, e));
            }
        }
    }
    for (int c = 0; c < C; c++)
        for (int i = 0; i < 4; i++) vst1q_f32(out + c * ROWS + 4 * i, total[c][i]);
}

// With activations in 16 bits, one column at a time: two sums of 16 rows, and their total.
static void tile_16(const uint8_t* block, int64_t k, const uint8_t* column, float* out) {
    const uint8_t* w = block + scales_bytes(k);
    const int8_t *both[2] = {(const int8_t*)column, (const int8_t*)column + finer(k)};
    float32x4_t total[4];
    for (int i = 0; i < 4; i++) total[i] = vdupq_n_f32(0);
    for (int64_t g = 0; g < k / GROUP; g++, w += 512) {
        int32x4_t part[2][4];
        int8x16_t q[2][2];
        for (int h = 0; h < 2; h++) {
            for (int i = 0; i < 4; i++) part[h][i] = vdupq_n_s32(0);
            for (int i = 0; i < 2; i++) q[h][i] = vld1q_s8(both[h] + g * GROUP + 16 * i);
        }
#define STEP(s, half, lane)                        \
    {                                              \
        const Rows r = rows(w + 64 * (s));         \
        FOUR(part[0], r, q[0][half], lane)         \
        FOUR(part[1], r, q[1][half], lane)         \
    }
        STEP(0, 0, 0) STEP(1, 0, 1) STEP(2, 0, 2) STEP(3, 0, 3) STEP(4, 1, 0) STEP(5, 1, 1) STEP(6, 1, 2) STEP(7, 1, 3)
#undef STEP
        const float e = ((const float*)(column + 2 * k))[g];
        for (int i = 0; i < 4; i++) {
            const float32x4_t d = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)(block + g * 32 + i * 8))));
            const float32x4_t whole = vfmaq_n_f32(vcvtq_f32_s32(part[0][i]), vcvtq_f32_s32(part[1][i]), 1.0f / FINER);
            total[i] = vfmaq_f32(total[i], whole, vmulq_n_f32(d, e));
        }
    }
    for (int i = 0; i < 4; i++) vst1q_f32(out + 4 * i, total[i]);
}

template <int C>
static void tile_float(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    float32x4_t total[C][4];
    for (int c = 0; c < C; c++)
        for (int i = 0; i < 4; i++) total[c][i] = vdupq_n_f32(0);
    for (int64_t i = 0; i < k; i++)
        for (int r = 0; r < 4; r++) {
            float32x4_t weight;
            if (format == F32) {
                weight = vld1q_f32((const float*)block + i * ROWS + 4 * r);
            } else {
                const uint32x4_t pair = vld1q_u32((const uint32_t*)block + i / 2 * ROWS + 4 * r);
                weight = vreinterpretq_f32_u32(i % 2 ? vandq_u32(pair, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(pair, 16));
            }
            for (int c = 0; c < C; c++) total[c][r] = vfmaq_n_f32(total[c][r], weight, ((const float*)(columns + c * stride))[i]);
        }
    for (int c = 0; c < C; c++)
        for (int i = 0; i < 4; i++) vst1q_f32(out + c * ROWS + 4 * i, total[c][i]);
}

template <int C>
static void tile_of(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    if (format == Q8_16)
        for (int c = 0; c < C; c++) tile_16(block, k, columns + c * stride, out + c * ROWS);
    else if (format == Q8 || format == Q4) tile_narrow<C>(format, block, k, columns, stride, out);
    else tile_float<C>(format, block, k, columns, stride, out);
}

static void tile(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, int count, float* out) {
    switch (count) {
        case 1: tile_of<1>(format, block, k, columns, stride, out); break;
        case 2: tile_of<2>(format, block, k, columns, stride, out); break;
        case 3: tile_of<3>(format, block, k, columns, stride, out); break;
        default: tile_of<4>(format, block, k, columns, stride, out); break;
    }
}

}  // namespace neon

const Kernels* kernels_neon() {
    static const Kernels found = {"neon", 4, neon::prepare, neon::rms_norm, neon::layer_norm, neon::tile, neon::gate, neon::shape, neon::rotate, neon::attend};
    return &found;
}

}  // namespace tsuzuri
