// AVX2, FMA and F16C: Intel since Haswell (2013), AMD since Zen (2017).
//
// 8 bits: `vpmaddubsw` multiplies unsigned by signed and adds pairs with saturation at 2^15. |a| · sign(w, a) keeps a pair at
// most 2 · 127 · 127 = 32258, so it never saturates; the absolute values of the activations are prepared once a column.
// 4 bits: a nibble is at most 15, so a pair is at most 3810 and eight of them fit into 16 bits; what a nibble is too large by
// (8) times the activations is the column's correction, from which the sum starts (wrapping: the end is at most 16256).
#include <immintrin.h>
#include "kernels.h"
#define LANES 8

namespace tsuzuri {
namespace avx2 {
#include "lanes.h"

static inline __m256i broadcast(const void* p) {
    int32_t word;
    memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}
// The sum stays in its register, in this order. Left alone, GCC adds up eight steps as a tree and spills every product.
static inline void keep(__m256i& sum) { asm("" : "+x"(sum)); }
static inline __m256 half(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }

static void prepare(int32_t format, const float* x, int64_t k, uint8_t* column) {
    if (format == F32 || format == BF16) {
        if ((uint8_t*)x != column) memcpy(column, x, (size_t)k * 4);
        return;
    }
    int8_t* q = (int8_t*)column;
    uint8_t* a = column + k;
    float* scales = (float*)(column + 2 * k);
    int32_t* corrections = (int32_t*)(column + 2 * k + k / GROUP * 4);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int64_t g = 0; g < k / GROUP; g++) {
        const float* p = x + g * GROUP;
        __m256 v[4], top = _mm256_setzero_ps(), odd = top;
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(p + 8 * i);
            top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v[i]));
            odd = _mm256_or_ps(odd, _mm256_cmp_ps(_mm256_sub_ps(v[i], v[i]), _mm256_setzero_ps(), _CMP_NEQ_UQ));
        }
        if (_mm256_movemask_ps(odd)) {  // NaN or infinity: the whole group becomes NaN, never a number that looks right
            memset(q + g * GROUP, 0, GROUP);
            memset(a + g * GROUP, 0, GROUP);
            scales[g] = NAN;
            corrections[g] = 0;
            if (format == Q8_16) {
                memset(column + finer(k) + g * GROUP, 0, GROUP);
                memset(column + finer(k) + k + g * GROUP, 0, GROUP);
            }
            continue;
        }
        __m128 m = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
        m = _mm_max_ps(m, _mm_movehl_ps(m, m));
        m = _mm_max_ss(m, _mm_shuffle_ps(m, m, 1));
        const float largest = _mm_cvtss_f32(m);
        scales[g] = largest / 127.0f;
        const __m256 factor = _mm256_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        __m256i n[4];
        for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_round_ps(_mm256_mul_ps(v[i], factor), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        const __m256i low = _mm256_packs_epi32(n[0], n[1]), high = _mm256_packs_epi32(n[2], n[3]);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256((__m256i*)(q + g * GROUP), bytes);
        _mm256_storeu_si256((__m256i*)(a + g * GROUP), _mm256_abs_epi8(bytes));
        if (format == Q8_16) {
            uint8_t* rest = column + finer(k) + g * GROUP;
            for (int i = 0; i < 4; i++) {
                __m256 exact = _mm256_mul_ps(v[i], factor);
                asm("" : "+x"(exact));
                const __m256 over = _mm256_sub_ps(exact, _mm256_cvtepi32_ps(n[i]));
                n[i] = _mm256_cvtps_epi32(_mm256_round_ps(_mm256_mul_ps(over, _mm256_set1_ps(FINER)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
            }
            const __m256i pair = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
            const __m256i more = _mm256_permutevar8x32_epi32(pair, order);
            _mm256_storeu_si256((__m256i*)rest, more);
            _mm256_storeu_si256((__m256i*)(rest + k), _mm256_abs_epi8(more));
        }
        if (format == Q4) {  // -8 · Σ of inputs 0, 1 and of inputs 2, 3 of every four, as two int16
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);  // 16 sums of two
            __m128i s = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
            s = _mm_add_epi16(s, _mm_srli_si128(s, 8));
            s = _mm_add_epi16(s, _mm_srli_si128(s, 4));
            corrections[g] = _mm_cvtsi128_si32(_mm_mullo_epi16(s, _mm_set1_epi16(-8)));
        }
    }
}

// Four inputs of 16 rows against one column of activations and their absolute values.
static inline void four(__m256i& low, __m256i& high, __m256i w0, __m256i w1, const uint8_t* column, int64_t k) {
    const __m256i q = broadcast(column), a = broadcast(column + k), ones = _mm256_set1_epi16(1);
    low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(w0, q)), ones));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(w1, q)), ones));
    keep(low);
    keep(high);
}

// With activations in 16 bits: two columns fill the registers.
template <int C>
static void tile_q8_16(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    if constexpr (C > 2) {
        tile_q8_16<2>(block, k, columns, stride, out);
        tile_q8_16<C - 2>(block, k, columns + 2 * stride, stride, out + 2 * ROWS);
    } else {
        const int64_t groups = k / GROUP, left = finer(k);
        const uint8_t *scales = block, *w = block + scales_bytes(k);
        const __m256 step = _mm256_set1_ps(1.0f / FINER);
        __m256 first[C], second[C];
        for (int c = 0; c < C; c++) first[c] = second[c] = _mm256_setzero_ps();
        for (int64_t g = 0; g < groups; g++, w += 512, scales += 32) {
            __m256i low[2][C], high[2][C];
            for (int c = 0; c < C; c++) low[0][c] = high[0][c] = low[1][c] = high[1][c] = _mm256_setzero_si256();
            const uint8_t* column = columns + g * GROUP;
            for (int s = 0; s < 8; s++) {
                const __m256i w0 = _mm256_load_si256((const __m256i*)(w + 64 * s)), w1 = _mm256_load_si256((const __m256i*)(w + 64 * s + 32));
                ahead(w + 64 * s);
                for (int c = 0; c < C; c++) {
                    four(low[0][c], high[0][c], w0, w1, column + c * stride + 4 * s, k);
                    four(low[1][c], high[1][c], w0, w1, column + c * stride + left + 4 * s, k);
                }
            }
            const __m256 d0 = half(scales), d1 = half(scales + 16);
            for (int c = 0; c < C; c++) {
                const __m256 d = _mm256_broadcast_ss((const float*)(columns + c * stride + 2 * k) + g);
                const __m256 one = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low[1][c]), step, _mm256_cvtepi32_ps(low[0][c]));
                const __m256 other = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high[1][c]), step, _mm256_cvtepi32_ps(high[0][c]));
                first[c] = _mm256_fmadd_ps(one, _mm256_mul_ps(d0, d), first[c]);
                second[c] = _mm256_fmadd_ps(other, _mm256_mul_ps(d1, d), second[c]);
            }
        }
        for (int c = 0; c < C; c++) {
            _mm256_storeu_ps(out + c * ROWS, first[c]);
            _mm256_storeu_ps(out + c * ROWS + 8, second[c]);
        }
    }
}

template <int C>
static void tile_q8(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const int64_t groups = k / GROUP;
    const uint8_t *scales = block, *w = block + scales_bytes(k);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 first[C], second[C];
    for (int c = 0; c < C; c++) first[c] = second[c] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g++, w += 512, scales += 32) {
        __m256i low[C], high[C];
        for (int c = 0; c < C; c++) low[c] = high[c] = _mm256_setzero_si256();
        const uint8_t* column = columns + g * GROUP;
#pragma GCC unroll 8
        for (int s = 0; s < 8; s++) {
            const __m256i w0 = _mm256_load_si256((const __m256i*)(w + 64 * s)), w1 = _mm256_load_si256((const __m256i*)(w + 64 * s + 32));
            ahead(w + 64 * s);
            for (int c = 0; c < C; c++) {
                const __m256i q = broadcast(column + c * stride + 4 * s), a = broadcast(column + c * stride + k + 4 * s);
                low[c] = _mm256_add_epi32(low[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(w0, q)), ones));
                high[c] = _mm256_add_epi32(high[c], _mm256_madd_epi16(_mm256_maddubs_epi16(a, _mm256_sign_epi8(w1, q)), ones));
                keep(low[c]);
                keep(high[c]);
            }
        }
        const __m256 d0 = half(scales), d1 = half(scales + 16);
        for (int c = 0; c < C; c++) {
            const __m256 d = _mm256_broadcast_ss((const float*)(columns + c * stride + 2 * k) + g);
            first[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(low[c]), _mm256_mul_ps(d0, d), first[c]);
            second[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high[c]), _mm256_mul_ps(d1, d), second[c]);
        }
    }
    for (int c = 0; c < C; c++) {
        _mm256_storeu_ps(out + c * ROWS, first[c]);
        _mm256_storeu_ps(out + c * ROWS + 8, second[c]);
    }
}

template <int C>
static void tile_q4(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const int64_t groups = k / GROUP;
    const uint8_t *scales = block, *w = block + scales_bytes(k);
    const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(15);
    __m256 first[C], second[C];
    for (int c = 0; c < C; c++) first[c] = second[c] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g++, w += 256, scales += 32) {
        __m256i low[C], high[C];
        const uint8_t* column = columns + g * GROUP;
        for (int c = 0; c < C; c++) low[c] = high[c] = broadcast(columns + c * stride + 2 * k + groups * 4 + g * 4);
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            const __m256i w0 = _mm256_load_si256((const __m256i*)(w + 64 * s)), w1 = _mm256_load_si256((const __m256i*)(w + 64 * s + 32));
            ahead(w + 64 * s);
            const __m256i a0 = _mm256_and_si256(w0, nibble), a1 = _mm256_and_si256(w1, nibble);
            for (int c = 0; c < C; c++) {
                const __m256i q = broadcast(column + c * stride + 4 * s);
                low[c] = _mm256_add_epi16(low[c], _mm256_maddubs_epi16(a0, q));
                high[c] = _mm256_add_epi16(high[c], _mm256_maddubs_epi16(a1, q));
                keep(low[c]);
                keep(high[c]);
            }
            const __m256i b0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), nibble), b1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), nibble);
            for (int c = 0; c < C; c++) {
                const __m256i q = broadcast(column + c * stride + 16 + 4 * s);
                low[c] = _mm256_add_epi16(low[c], _mm256_maddubs_epi16(b0, q));
                high[c] = _mm256_add_epi16(high[c], _mm256_maddubs_epi16(b1, q));
                keep(low[c]);
                keep(high[c]);
            }
        }
        const __m256 d0 = half(scales), d1 = half(scales + 16);
        for (int c = 0; c < C; c++) {
            const __m256 d = _mm256_broadcast_ss((const float*)(columns + c * stride + 2 * k) + g);
            first[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(low[c], ones)), _mm256_mul_ps(d0, d), first[c]);
            second[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(high[c], ones)), _mm256_mul_ps(d1, d), second[c]);
        }
    }
    for (int c = 0; c < C; c++) {
        _mm256_storeu_ps(out + c * ROWS, first[c]);
        _mm256_storeu_ps(out + c * ROWS + 8, second[c]);
    }
}

template <int C>
static void tile_f32(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const float* w = (const float*)block;
    __m256 low[C], high[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) low[c] = high[c] = _mm256_setzero_ps();
    for (int64_t i = 0; i < k; i++, w += ROWS) {
        const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);
        ahead(w);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            const __m256 x = _mm256_broadcast_ss((const float*)(columns + c * stride) + i);
            low[c] = _mm256_fmadd_ps(w0, x, low[c]);
            high[c] = _mm256_fmadd_ps(w1, x, high[c]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) {
        _mm256_storeu_ps(out + c * ROWS, low[c]);
        _mm256_storeu_ps(out + c * ROWS + 8, high[c]);
    }
}

// Even and odd inputs are summed apart: a sum that waits for itself takes four cycles. So two columns fill the registers.
template <int C>
static void tile_bf16(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    if constexpr (C > 2) {
        tile_bf16<2>(block, k, columns, stride, out);
        tile_bf16<C - 2>(block, k, columns + 2 * stride, stride, out + 2 * ROWS);
    } else {
        const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
        __m256 even[2][C], odd[2][C];
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) even[0][c] = even[1][c] = odd[0][c] = odd[1][c] = _mm256_setzero_ps();
        for (int64_t i = 0; i < k; i += 2, block += 64) {
            const __m256i w0 = _mm256_load_si256((const __m256i*)block), w1 = _mm256_load_si256((const __m256i*)(block + 32));
            ahead(block);
#pragma GCC unroll 2
            for (int c = 0; c < C; c++) {
                const __m256 x = _mm256_broadcast_ss((const float*)(columns + c * stride) + i);
                even[0][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w0, 16)), x, even[0][c]);
                even[1][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w1, 16)), x, even[1][c]);
            }
            if (i + 1 == k) break;  // an odd last input has no partner
#pragma GCC unroll 2
            for (int c = 0; c < C; c++) {
                const __m256 x = _mm256_broadcast_ss((const float*)(columns + c * stride) + i + 1);
                odd[0][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w0, upper)), x, odd[0][c]);
                odd[1][c] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w1, upper)), x, odd[1][c]);
            }
        }
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            _mm256_storeu_ps(out + c * ROWS, _mm256_add_ps(even[0][c], odd[0][c]));
            _mm256_storeu_ps(out + c * ROWS + 8, _mm256_add_ps(even[1][c], odd[1][c]));
        }
    }
}

template <int C>
static void tile_of(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    switch (format) {
        case Q8: tile_q8<C>(block, k, columns, stride, out); break;
        case Q8_16: tile_q8_16<C>(block, k, columns, stride, out); break;
        case Q4: tile_q4<C>(block, k, columns, stride, out); break;
        case BF16: tile_bf16<C>(block, k, columns, stride, out); break;
        default: tile_f32<C>(block, k, columns, stride, out); break;
    }
}

static void tile(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, int count, float* out) {
    switch (count) {
        case 1: tile_of<1>(format, block, k, columns, stride, out); break;
        case 2: tile_of<2>(format, block, k, columns, stride, out); break;
        case 3: tile_of<3>(format, block, k, columns, stride, out); break;
        default: tile_of<4>(format, block, k, columns, stride, out); break;
    }
}

}  // namespace avx2

const Kernels* kernels_avx2() {
    static const Kernels found = {"avx2", 4, avx2::prepare, avx2::rms_norm, avx2::layer_norm, avx2::tile, avx2::gate, avx2::shape, avx2::rotate, avx2::attend};
    return &found;
}

}  // namespace tsuzuri
