// The AVX-512 instructions that avx512.h uses, each in plain C++ after Intel's description ("Intel 64 and IA-32 Architectures
// Software Developer's Manual", volume 2), lane by lane. For a processor that does not have them: slow and exact.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct F { float v[16]; };
struct I { int32_t v[16]; };
template <class T> struct Lanes { T v[64 / sizeof(T)]; };
template <class To, class From> inline To as(const From& x) {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    memcpy(&out, &x, sizeof out);
    return out;
}
template <class Function> inline F each(Function f) {
    F out;
    for (int i = 0; i < 16; i++) out.v[i] = f(i);
    return out;
}
template <class T, class Function> inline I each_of(Function f) {
    Lanes<T> out;
    for (int i = 0; i < int(64 / sizeof(T)); i++) out.v[i] = T(f(i));
    return as<I>(out);
}
inline int16_t saturated(int x) { return int16_t(x > 32767 ? 32767 : x < -32768 ? -32768 : x); }

inline F loadu_ps(const void* p) { F out; memcpy(&out, p, 64); return out; }
inline I loadu_si512(const void* p) { I out; memcpy(&out, p, 64); return out; }
inline void storeu_ps(void* p, F x) { memcpy(p, &x, 64); }
inline F setzero_ps() { return {}; }
inline I setzero_si512() { return {}; }
inline F set1_ps(float x) { return each([&](int) { return x; }); }
inline I set1_epi32(int32_t x) { return each_of<int32_t>([&](int) { return x; }); }
inline I set1_epi16(int16_t x) { return each_of<int16_t>([&](int) { return x; }); }
inline I set1_epi8(char x) { return each_of<int8_t>([&](int) { return int8_t(x); }); }
inline F abs_ps(F a) { return each([&](int i) { return std::fabs(a.v[i]); }); }
inline F add_ps(F a, F b) { return each([&](int i) { return a.v[i] + b.v[i]; }); }
inline F sub_ps(F a, F b) { return each([&](int i) { return a.v[i] - b.v[i]; }); }
inline F mul_ps(F a, F b) { return each([&](int i) { return a.v[i] * b.v[i]; }); }
inline F max_ps(F a, F b) { return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }  // the second, where one is NaN
inline F fmadd_ps(F a, F b, F c) { return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); }); }
inline float reduce_max_ps(F a) { float m = a.v[0]; for (float x : a.v) m = x > m ? x : m; return m; }
inline int reduce_add_epi32(I a) { uint32_t s = 0; for (int32_t x : a.v) s += uint32_t(x); return int(s); }
inline __mmask16 cmp_ps_mask(F a, F b, int predicate) {
    unsigned out = 0;
    if (predicate != _CMP_NEQ_UQ) __builtin_trap();  // no other is used
    for (int i = 0; i < 16; i++) out |= unsigned(!(a.v[i] == b.v[i])) << i;
    return __mmask16(out);
}
inline I cvtps_epi32(F a) { return each_of<int32_t>([&](int i) { return int32_t(std::nearbyintf(a.v[i])); }); }
inline F cvtepi32_ps(I a) { return each([&](int i) { return float(a.v[i]); }); }
inline __m128i cvtepi32_epi8(I a) {
    int8_t out[16];
    for (int i = 0; i < 16; i++) out[i] = int8_t(a.v[i]);  // the low byte
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(out));
}
inline F cvtph_ps(__m256i h) {
    F out;
    _mm256_storeu_ps(out.v, _mm256_cvtph_ps(_mm256_castsi256_si128(h)));
    _mm256_storeu_ps(out.v + 8, _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)));
    return out;
}
inline F castsi512_ps(I a) { return as<F>(a); }
inline I xor_si512(I a, I b) { return each_of<int32_t>([&](int i) { return a.v[i] ^ b.v[i]; }); }
inline I and_si512(I a, I b) { return each_of<int32_t>([&](int i) { return a.v[i] & b.v[i]; }); }
inline I slli_epi32(I a, int n) { return each_of<uint32_t>([&](int i) { return uint32_t(a.v[i]) << n; }); }
inline I srli_epi16(I a, int n) { auto x = as<Lanes<uint16_t>>(a); return each_of<uint16_t>([&](int i) { return x.v[i] >> n; }); }
inline I add_epi32(I a, I b) { return each_of<uint32_t>([&](int i) { return uint32_t(a.v[i]) + uint32_t(b.v[i]); }); }
inline I add_epi16(I a, I b) {
    auto x = as<Lanes<uint16_t>>(a), y = as<Lanes<uint16_t>>(b);
    return each_of<uint16_t>([&](int i) { return x.v[i] + y.v[i]; });
}
inline __mmask64 movepi8_mask(I a) {
    auto x = as<Lanes<int8_t>>(a);
    __mmask64 out = 0;
    for (int i = 0; i < 64; i++) out |= __mmask64(x.v[i] < 0) << i;
    return out;
}
inline I mask_sub_epi8(I src, __mmask64 mask, I a, I b) {
    auto s = as<Lanes<int8_t>>(src), x = as<Lanes<int8_t>>(a), y = as<Lanes<int8_t>>(b);
    return each_of<int8_t>([&](int i) { return mask >> i & 1 ? int8_t(x.v[i] - y.v[i]) : s.v[i]; });
}
inline I maddubs_epi16(I a, I b) {  // unsigned × signed, pairs added with saturation
    auto x = as<Lanes<uint8_t>>(a);
    auto y = as<Lanes<int8_t>>(b);
    return each_of<int16_t>([&](int i) { return saturated(x.v[2 * i] * y.v[2 * i] + x.v[2 * i + 1] * y.v[2 * i + 1]); });
}
inline I madd_epi16(I a, I b) {
    auto x = as<Lanes<int16_t>>(a), y = as<Lanes<int16_t>>(b);
    return each_of<int32_t>([&](int i) { return x.v[2 * i] * y.v[2 * i] + x.v[2 * i + 1] * y.v[2 * i + 1]; });
}
inline I dpbusd_epi32(I src, I a, I b) {  // unsigned × signed, four products, no saturation
    auto x = as<Lanes<uint8_t>>(a);
    auto y = as<Lanes<int8_t>>(b);
    return each_of<int32_t>([&](int i) {
        int total = src.v[i];
        for (int j = 0; j < 4; j++) total += x.v[4 * i + j] * y.v[4 * i + j];
        return total;
    });
}

}  // namespace emulated

#define __m512 emulated::F
#define __m512i emulated::I
#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_setzero_ps emulated::setzero_ps
#define _mm512_setzero_si512 emulated::setzero_si512
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_epi16 emulated::set1_epi16
#define _mm512_set1_epi8 emulated::set1_epi8
#define _mm512_abs_ps emulated::abs_ps
#define _mm512_add_ps emulated::add_ps
#define _mm512_sub_ps emulated::sub_ps
#define _mm512_mul_ps emulated::mul_ps
#define _mm512_max_ps emulated::max_ps
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_reduce_max_ps emulated::reduce_max_ps
#define _mm512_reduce_add_epi32 emulated::reduce_add_epi32
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask emulated::cmp_ps_mask
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepi32_epi8 emulated::cvtepi32_epi8
#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_castsi512_ps emulated::castsi512_ps
#define _mm512_xor_si512 emulated::xor_si512
#define _mm512_and_si512 emulated::and_si512
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emulated::slli_epi32
#undef _mm512_srli_epi16
#define _mm512_srli_epi16 emulated::srli_epi16
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_add_epi16 emulated::add_epi16
#define _mm512_movepi8_mask emulated::movepi8_mask
#define _mm512_mask_sub_epi8 emulated::mask_sub_epi8
#define _mm512_maddubs_epi16 emulated::maddubs_epi16
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_dpbusd_epi32 emulated::dpbusd_epi32
