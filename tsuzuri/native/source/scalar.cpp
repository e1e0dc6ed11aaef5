// Plain C++ for any processor: what the other variants are held against, and what runs where none of them can.
#include "kernels.h"
#define LANES 4

namespace tsuzuri {
namespace scalar {
#include "lanes.h"

static inline float half(const uint8_t* p) {
    uint16_t h;
    memcpy(&h, p, 2);
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    float x = exponent == 0 ? ldexpf((float)fraction, -24) : exponent == 31 ? (fraction ? NAN : INFINITY) : ldexpf((float)(fraction | 1024), exponent - 25);
    return h >> 15 ? -x : x;
}

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
        float largest = 0, odd = 0;
        for (int i = 0; i < GROUP; i++) {
            largest = fabsf(p[i]) > largest ? fabsf(p[i]) : largest;
            odd += p[i] - p[i];
        }
        if (odd != 0) {  // NaN or infinity: the whole group becomes NaN, never a number that looks right
            memset(q + g * GROUP, 0, GROUP);
            scales[g] = NAN;
            corrections[g] = 0;
            if (format == Q8_16) memset(column + finer(k) + g * GROUP, 0, GROUP);
            continue;
        }
        scales[g] = largest / 127.0f;
        const float factor = largest > 0 ? 127.0f / largest : 0.0f;
        int32_t total = 0;
        for (int i = 0; i < GROUP; i++) {
            float exact = p[i] * factor;
            asm("" : "+m"(exact));
            const int8_t n = (int8_t)nearbyintf(exact);
            q[g * GROUP + i] = n;
            total += n;
            if (format == Q8_16) ((int8_t*)column)[finer(k) + g * GROUP + i] = (int8_t)nearbyintf((exact - (float)n) * FINER);
        }
        corrections[g] = format == Q4 ? -8 * total : 0;
    }
}

static void one(int32_t format, const uint8_t* block, int64_t k, const uint8_t* column, float* out) {
    for (int r = 0; r < ROWS; r++) out[r] = 0;
    if (format == F32 || format == BF16) {
        const float *x = (const float*)column, *w = (const float*)block;
        const uint16_t* narrow = (const uint16_t*)block;
        for (int64_t i = 0; i < k; i++)
            for (int r = 0; r < ROWS; r++) out[r] += (format == F32 ? w[i * ROWS + r] : from_bf16(narrow[i / 2 * 2 * ROWS + r * 2 + i % 2])) * x[i];
        return;
    }
    const int64_t groups = k / GROUP;
    const int8_t* q = (const int8_t*)column;
    const float* scales = (const float*)(column + 2 * k);
    const int32_t* corrections = (const int32_t*)(column + 2 * k + groups * 4);
    const uint8_t* w = block + scales_bytes(k);
    const int8_t* left = (const int8_t*)column + finer(k);
    for (int64_t g = 0; g < groups; g++, q += GROUP, left += GROUP) {
        int32_t total[ROWS], rest[ROWS];
        for (int r = 0; r < ROWS; r++) total[r] = corrections[g], rest[r] = 0;
        for (int s = 0; s < (format == Q4 ? 4 : 8); s++, w += 4 * ROWS)
            for (int r = 0; r < ROWS; r++)
                for (int i = 0; i < 4; i++) {
                    const uint8_t byte = w[r * 4 + i];
                    if (format != Q4) total[r] += (int8_t)byte * q[4 * s + i];
                    if (format == Q8_16) rest[r] += (int8_t)byte * left[4 * s + i];
                    if (format == Q4) total[r] += (byte & 15) * q[4 * s + i] + (byte >> 4) * q[16 + 4 * s + i];
                }
        for (int r = 0; r < ROWS; r++) out[r] += ((float)total[r] + (float)rest[r] * (1.0f / FINER)) * (half(block + (g * ROWS + r) * 2) * scales[g]);
    }
}

static void tile(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, int count, float* out) {
    for (int c = 0; c < count; c++) one(format, block, k, columns + c * stride, out + c * ROWS);
}

}  // namespace scalar

const Kernels* kernels_scalar() {
    static const Kernels found = {"scalar", 4, scalar::prepare, scalar::rms_norm, scalar::layer_norm, scalar::tile, scalar::gate, scalar::shape, scalar::rotate, scalar::attend};
    return &found;
}

}  // namespace tsuzuri
