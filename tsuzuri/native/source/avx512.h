// Both AVX-512 variants, included once by each inside its namespace: VNNI says which instructions there are.
//
// Without VNNI (Skylake, 2017) as AVX2 in avx2.cpp, only twice as wide. With it (Cascade Lake, Zen 4) `vpdpbusd` adds four
// products of unsigned and signed bytes to 32 bits without saturation: weights are made unsigned by adding 128 (8 bits) or are
// (4 bits), and what that adds, 128 or 8 times the sum of the group's activations, is where the sum starts from.
// bfloat16 weights are widened and meet float32: `vdpbf16ps` would round the activations too, and was not faster where it was tried.

static inline int32_t word(const void* p) {
    int32_t found;
    memcpy(&found, p, 4);
    return found;
}

static void leave_nothing(uint8_t* rest, int64_t k, int64_t g) {
    memset(rest + g * GROUP, 0, GROUP);
    memset(rest + k + g * GROUP, 0, GROUP);
    memset(rest + 2 * k + g * 4, 0, 4);
}

static void prepare(int32_t format, const float* x, int64_t k, uint8_t* column) {
    if (format == F32 || format == BF16) {
        if ((const uint8_t*)x != column) memcpy(column, x, (size_t)k * 4);
        return;
    }
    int8_t* q = (int8_t*)column;
    uint8_t* a = column + k;
    float* scales = (float*)(column + 2 * k);
    int32_t* corrections = (int32_t*)(column + 2 * k + k / GROUP * 4);
    for (int64_t g = 0; g < k / GROUP; g++) {
        const __m512 v0 = _mm512_loadu_ps(x + g * GROUP), v1 = _mm512_loadu_ps(x + g * GROUP + 16), zero = _mm512_setzero_ps();
        const float largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(v0), _mm512_abs_ps(v1)));
        const __mmask16 odd = _mm512_cmp_ps_mask(_mm512_sub_ps(v0, v0), zero, _CMP_NEQ_UQ) | _mm512_cmp_ps_mask(_mm512_sub_ps(v1, v1), zero, _CMP_NEQ_UQ);
        if (odd) {  // NaN or infinity: the whole group becomes NaN, never a number that looks right
            memset(q + g * GROUP, 0, GROUP);
            memset(a + g * GROUP, 0, GROUP);
            scales[g] = NAN;
            corrections[g] = 0;
            if (format == Q8_16) leave_nothing(column + finer(k), k, g);
            continue;
        }
        scales[g] = largest / 127.0f;
        const __m512 factor = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        __m512 s0 = _mm512_mul_ps(v0, factor), s1 = _mm512_mul_ps(v1, factor);
        ROUNDED(s0);
        ROUNDED(s1);
        const __m512i n0 = _mm512_cvtps_epi32(s0), n1 = _mm512_cvtps_epi32(s1);
        const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(n0)), _mm512_cvtepi32_epi8(n1), 1);
        _mm256_storeu_si256((__m256i*)(q + g * GROUP), bytes);
        _mm256_storeu_si256((__m256i*)(a + g * GROUP), _mm256_abs_epi8(bytes));
        if (format == Q8_16) {
            const __m512 step = _mm512_set1_ps(FINER);
            const __m512i r0 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(s0, _mm512_cvtepi32_ps(n0)), step));
            const __m512i r1 = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(s1, _mm512_cvtepi32_ps(n1)), step));
            const __m256i more = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm512_cvtepi32_epi8(r0)), _mm512_cvtepi32_epi8(r1), 1);
            uint8_t* rest = column + finer(k);
            const int32_t correction = VNNI ? _mm512_reduce_add_epi32(_mm512_add_epi32(r0, r1)) * -128 : 0;
            _mm256_storeu_si256((__m256i*)(rest + g * GROUP), more);
            _mm256_storeu_si256((__m256i*)(rest + k + g * GROUP), _mm256_abs_epi8(more));
            memcpy(rest + 2 * k + g * 4, &correction, 4);
        }
        if (VNNI) {
            corrections[g] = _mm512_reduce_add_epi32(_mm512_add_epi32(n0, n1)) * (format == Q4 ? -8 : -128);
        } else {  // -8 · Σ of inputs 0, 1 and of inputs 2, 3 of every four, as two int16
            const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
            __m128i s = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
            s = _mm_add_epi16(s, _mm_srli_si128(s, 8));
            s = _mm_add_epi16(s, _mm_srli_si128(s, 4));
            corrections[g] = _mm_cvtsi128_si32(_mm_mullo_epi16(s, _mm_set1_epi16(-8)));
        }
    }
}

#if VNNI
#define PRODUCTS(part, base) part[c] = _mm512_dpbusd_epi32(part[c], raised, _mm512_set1_epi32(word((base) + c * stride + 4 * s)))
#else
#define PRODUCTS(part, base)                                                                                                  \
    {                                                                                                                         \
        const __m512i q = _mm512_set1_epi32(word((base) + c * stride + 4 * s)), a = _mm512_set1_epi32(word((base) + c * stride + k + 4 * s)); \
        const __m512i turned = _mm512_mask_sub_epi8(weight, _mm512_movepi8_mask(q), _mm512_setzero_si512(), weight);           \
        part[c] = _mm512_add_epi32(part[c], _mm512_madd_epi16(_mm512_maddubs_epi16(a, turned), _mm512_set1_epi16(1)));         \
    }
#endif

template <int C, bool FINE>
static void tile_q8(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const int64_t groups = k / GROUP, left = finer(k);
    const uint8_t *scales = block, *w = block + scales_bytes(k);
    __m512 total[C];
    for (int c = 0; c < C; c++) total[c] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g++, w += 512, scales += 32) {
        __m512i part[C], rest[C];
        const uint8_t* column = columns + g * GROUP;
        for (int c = 0; c < C; c++) part[c] = VNNI ? _mm512_set1_epi32(word(columns + c * stride + 2 * k + groups * 4 + g * 4)) : _mm512_setzero_si512();
        if constexpr (FINE)
            for (int c = 0; c < C; c++) rest[c] = VNNI ? _mm512_set1_epi32(word(columns + c * stride + left + 2 * k + g * 4)) : _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int s = 0; s < 8; s++) {
            const __m512i weight = _mm512_loadu_si512(w + 64 * s);
            ahead(w + 64 * s);
#if VNNI
            const __m512i raised = _mm512_xor_si512(weight, _mm512_set1_epi8((char)0x80));
#endif
            for (int c = 0; c < C; c++) PRODUCTS(part, column);
            if constexpr (FINE)
                for (int c = 0; c < C; c++) PRODUCTS(rest, column + left);
        }
        const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)scales));
        for (int c = 0; c < C; c++) {
            const __m512 e = _mm512_set1_ps(((const float*)(columns + c * stride + 2 * k))[g]);
            __m512 whole = _mm512_cvtepi32_ps(part[c]);
            if constexpr (FINE) whole = _mm512_fmadd_ps(_mm512_cvtepi32_ps(rest[c]), _mm512_set1_ps(1.0f / FINER), whole);
            total[c] = _mm512_fmadd_ps(whole, _mm512_mul_ps(d, e), total[c]);
        }
    }
    for (int c = 0; c < C; c++) _mm512_storeu_ps(out + c * ROWS, total[c]);
}

template <int C>
static void tile_q4(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    const int64_t groups = k / GROUP;
    const uint8_t *scales = block, *w = block + scales_bytes(k);
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512 total[C];
    for (int c = 0; c < C; c++) total[c] = _mm512_setzero_ps();
    for (int64_t g = 0; g < groups; g++, w += 256, scales += 32) {
        __m512i part[C];
        const uint8_t* column = columns + g * GROUP;
        for (int c = 0; c < C; c++) part[c] = _mm512_set1_epi32(word(columns + c * stride + 2 * k + groups * 4 + g * 4));
#pragma GCC unroll 4
        for (int s = 0; s < 4; s++) {
            const __m512i weight = _mm512_loadu_si512(w + 64 * s);
            ahead(w + 64 * s);
            const __m512i low = _mm512_and_si512(weight, nibble), high = _mm512_and_si512(_mm512_srli_epi16(weight, 4), nibble);
            for (int c = 0; c < C; c++) {
                const __m512i q = _mm512_set1_epi32(word(column + c * stride + 4 * s)), r = _mm512_set1_epi32(word(column + c * stride + 16 + 4 * s));
#if VNNI
                part[c] = _mm512_dpbusd_epi32(part[c], low, q);
                part[c] = _mm512_dpbusd_epi32(part[c], high, r);
#else
                part[c] = _mm512_add_epi16(part[c], _mm512_maddubs_epi16(low, q));
                part[c] = _mm512_add_epi16(part[c], _mm512_maddubs_epi16(high, r));
#endif
            }
        }
        const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)scales));
        for (int c = 0; c < C; c++) {
            const __m512i whole = VNNI ? part[c] : _mm512_madd_epi16(part[c], _mm512_set1_epi16(1));
            const __m512 e = _mm512_set1_ps(((const float*)(columns + c * stride + 2 * k))[g]);
            total[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), _mm512_mul_ps(d, e), total[c]);
        }
    }
    for (int c = 0; c < C; c++) _mm512_storeu_ps(out + c * ROWS, total[c]);
}

template <int C>
static void tile_f32(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    __m512 total[C];
    for (int c = 0; c < C; c++) total[c] = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i++, block += 64) {
        const __m512 weight = _mm512_loadu_ps((const float*)block);
        ahead(block);
        for (int c = 0; c < C; c++) total[c] = _mm512_fmadd_ps(weight, _mm512_set1_ps(((const float*)(columns + c * stride))[i]), total[c]);
    }
    for (int c = 0; c < C; c++) _mm512_storeu_ps(out + c * ROWS, total[c]);
}

template <int C>
static void tile_bf16(const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    __m512 total[C], rest[C];  // even and odd inputs, since a sum that waits for itself takes four cycles
    for (int c = 0; c < C; c++) total[c] = rest[c] = _mm512_setzero_ps();
    for (int64_t i = 0; i < k; i += 2, block += 64) {
        const __m512i weight = _mm512_loadu_si512(block);
        ahead(block);
        const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(weight, 16));
        const __m512 odd = _mm512_castsi512_ps(_mm512_and_si512(weight, _mm512_set1_epi32((int)0xffff0000)));
        for (int c = 0; c < C; c++) {
            const float* x = (const float*)(columns + c * stride) + i;
            total[c] = _mm512_fmadd_ps(even, _mm512_set1_ps(x[0]), total[c]);
            if (i + 1 < k) rest[c] = _mm512_fmadd_ps(odd, _mm512_set1_ps(x[1]), rest[c]);
        }
    }
    for (int c = 0; c < C; c++) _mm512_storeu_ps(out + c * ROWS, _mm512_add_ps(total[c], rest[c]));
}

template <int C>
static void tile_of(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t stride, float* out) {
    switch (format) {
        case Q8: tile_q8<C, false>(block, k, columns, stride, out); break;
        case Q8_16: tile_q8<C, true>(block, k, columns, stride, out); break;
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
        case 4: tile_of<4>(format, block, k, columns, stride, out); break;
        case 5: tile_of<5>(format, block, k, columns, stride, out); break;
        case 6: tile_of<6>(format, block, k, columns, stride, out); break;
        case 7: tile_of<7>(format, block, k, columns, stride, out); break;
        default: tile_of<8>(format, block, k, columns, stride, out); break;
    }
}
