// What all variants share: norms, activations, rotation and attention, on vectors of LANES floats.
//
// Included once by each variant, inside a namespace of its own and compiled with its own flags: GCC's and Clang's vector
// types become the registers of that processor. Nothing here may be `inline` in the linker's sense, and no function of the
// standard library may be instantiated here: the linker would keep one copy for all variants, perhaps one that this
// processor cannot run.

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

static inline Floats load(const float* p) { Floats v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float* p, Floats v) { memcpy(p, &v, sizeof v); }
static inline void ahead(const void* p) { __builtin_prefetch((const void*)((uintptr_t)p + AHEAD), 0, 2); }  // never faults
static inline Floats all(float x) { return x - Floats{}; }
static inline Floats load(const uint16_t* p) {  // bfloat16: the upper half of a float32
    Halves h;
    memcpy(&h, p, sizeof h);
    return (Floats)(__builtin_convertvector(h, Words) << 16);
}
static inline float sum(Floats v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}
static inline uint16_t to_bf16(float x) {  // to nearest, ties to even; a NaN stays one
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float from_bf16(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// e^x to 2 units in the last place (Cephes' polynomial); below -87.3 it is 0, above 88.3 the largest such power.
static inline Floats exponential(Floats x) {
    const Floats low = all(-87.3365f), high = all(88.3763f);
    const Ints tiny = x < low;
    x = x < high ? x : high;
    x = tiny ? low : x;
    const Floats magic = all(12582912.0f);  // 1.5 · 2^23: adding it rounds to a whole number
    Floats n = (x * all(1.44269504f) + magic) - magic;
    Floats r = x - n * all(0.693359375f);
    r = r - n * all(-2.12194440e-4f);
    Floats p = all(1.9875691500e-4f);
    p = p * r + all(1.3981999507e-3f);
    p = p * r + all(8.3334519073e-3f);
    p = p * r + all(4.1665795894e-2f);
    p = p * r + all(1.6666665459e-1f);
    p = p * r + all(5.0000001201e-1f);
    p = p * r * r + r + all(1.0f);
    Ints power = (__builtin_convertvector(n, Ints) + 127) << 23;
    Floats out = p * (Floats)power;
    return tiny ? Floats{} : out;
}
static inline Floats silu(Floats x) { return x / (all(1.0f) + exponential(-x)); }

static void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
    Floats squares = {}, more = {};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        Floats a = load(x + i), b = load(x + i + LANES);
        squares += a * a;
        more += b * b;
    }
    float total = sum(squares + more);
    for (; i < n; i++) total += x[i] * x[i];
    const float scale = 1.0f / sqrtf(total / (float)n + eps);
    for (i = 0; i + LANES <= n; i += LANES) store(out + i, load(x + i) * all(scale) * load(weight + i));
    for (; i < n; i++) out[i] = x[i] * scale * weight[i];
}

static void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
    float mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i];
    mean /= (float)n;
    for (int64_t i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / sqrtf(variance / (float)n + eps);
    for (int64_t i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0);
}

static inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
static inline float gelu_tanh(float x) { return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); }

static void gate(int32_t kind, const float* g, const float* up, float* out, int64_t n) {
    int64_t i = 0;
    if (kind == GATE_SILU) {
        for (; i + LANES <= n; i += LANES) store(out + i, silu(load(g + i)) * load(up + i));
        for (; i < n; i++) out[i] = g[i] / (1.0f + expf(-g[i])) * up[i];
    } else {
        for (; i < n; i++) out[i] = (kind == GATE_GELU ? gelu(g[i]) : gelu_tanh(g[i])) * up[i];
    }
}

static void shape(int32_t kind, float* x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        switch (kind) {
            case SHAPE_GELU: x[i] = gelu(x[i]); break;
            case SHAPE_GELU_TANH: x[i] = gelu_tanh(x[i]); break;
            case SHAPE_RELU2: x[i] = x[i] > 0 ? x[i] * x[i] : 0; break;
            case SHAPE_SILU: x[i] = x[i] / (1.0f + expf(-x[i])); break;
            default: break;
        }
    }
}

// The first `turned` numbers of a head. pairing 0: (i, i + turned/2), as Llama's weights; 1: (2i, 2i + 1). cos, sin: [turned/2].
static void rotate(float* head, const float* cos, const float* sin, int64_t turned, int32_t pairing) {
    const int64_t half = turned / 2, step = pairing ? 2 : 1, apart = pairing ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        float *a = head + i * step, *b = a + apart;
        const float x = *a, y = *b;
        *a = x * cos[i] - y * sin[i];
        *b = y * cos[i] + x * sin[i];
    }
}

// ── attention: one pass over the pages with a running maximum (Milakov & Gimelshein 2018; Rabe & Staats 2021)

// Keys of a page lie in chunks of 16 tokens, [chunk][E][16]: a chunk is read once, in order, and a lane is a token.
constexpr int V = KEYS / LANES;  // vectors of 16 floats

// C chunks at once: a sum that waits for itself takes four cycles, so few rows need several. The order within a sum is the same
// for any number of rows and chunks: a token gets the same bits alone and among others.
template <int R, int C, class T>
static inline void score_chunks(const Look& look, const T* keys, float* found) {
    const int64_t size = look.head_size;
    Floats s[R][C * V] = {};
    for (int64_t e = 0; e < size; e++)
#pragma GCC unroll 16
        for (int c = 0; c < C * V; c++) {
            const Floats key = load(keys + (c / V * size + e) * KEYS + c % V * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) s[r][c] += all(look.queries[r][e]) * key;
        }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < C * V; c++) store(found + r * look.page_size + c * LANES, s[r][c] * all(look.scale));
}

template <int R, class T>
static inline void scores(const Look& look, const T* keys, int64_t chunks, float* found) {
    constexpr int C = R == 1 ? 4 : R == 2 ? 2 : 1;
    int64_t c = 0;
    for (; c + C <= chunks; c += C) score_chunks<R, C, T>(look, keys + c * look.head_size * KEYS, found + c * KEYS);
    for (; c < chunks; c++) score_chunks<R, 1, T>(look, keys + c * look.head_size * KEYS, found + c * KEYS);
}

// sums += chances · values, C chunks of 16 of a head at once
template <int R, int C, class T>
static inline void mix_chunks(const Look& look, const T* values, const float* chances, int64_t count, float* sums) {
    Floats s[R][C * V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < C * V; c++) s[r][c] = load(sums + r * look.padded + c * LANES);
    for (int64_t j = 0; j < count; j++)
#pragma GCC unroll 16
        for (int c = 0; c < C * V; c++) {
            const Floats value = load(values + j * look.padded + c * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) s[r][c] += all(chances[r * look.page_size + j]) * value;
        }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 16
        for (int c = 0; c < C * V; c++) store(sums + r * look.padded + c * LANES, s[r][c]);
}

template <int R, class T>
static inline void mix(const Look& look, const T* values, const float* chances, int64_t count, float* sums) {
    constexpr int C = R == 1 ? 4 : R == 2 ? 2 : 1;
    int64_t e = 0;
    for (; e + C * KEYS <= look.padded; e += C * KEYS) mix_chunks<R, C, T>(look, values + e, chances, count, sums + e);
    for (; e < look.padded; e += KEYS) mix_chunks<R, 1, T>(look, values + e, chances, count, sums + e);
}

// The scores of one page become weights against the row's running maximum; the factor by which what was summed before shrinks.
// Never inlined: each copy could round differently (a product and a sum fused, or not), and a token would depend on its neighbours.
__attribute__((noinline)) static float weigh(const Look& look, int r, int64_t start, int64_t n, float* s, float* maximum, float* total) {
    const int64_t last = look.last[r] - start, first = look.window ? last - look.window + 1 : 0;  // within the page
    if (look.cap > 0)
        for (int64_t j = 0; j < n; j++) s[j] = look.cap * tanhf(s[j] / look.cap);
    if (look.slope[r] != 0)
        for (int64_t j = 0; j < n; j++) s[j] -= look.slope[r] * (float)(last - j);
    for (int64_t j = last + 1 > 0 ? last + 1 : 0; j < n; j++) s[j] = -INFINITY;
    for (int64_t j = 0; j < first && j < n; j++) s[j] = -INFINITY;
    Floats top = load(s);
    for (int64_t j = LANES; j < n; j += LANES) {
        const Floats more = load(s + j);
        top = top > more ? top : more;
    }
    float most = *maximum;
    for (int i = 0; i < LANES; i++) most = top[i] > most ? top[i] : most;
    if (most == -INFINITY) {  // nothing of this page is seen, and nothing was before
        for (int64_t j = 0; j < n; j++) s[j] = 0;
        return 1;
    }
    Floats sums = {};
    for (int64_t j = 0; j < n; j += LANES) {
        const Floats p = exponential(load(s + j) - all(most));
        store(s + j, p);
        sums += p;
    }
    const float factor = *maximum == -INFINITY ? 0 : *maximum == most ? 1 : expf(*maximum - most);
    *total = *total * factor + sum(sums);
    *maximum = most;
    return factor;
}

// Asks for what is read next, line by line, while something else is computed.
template <class T>
static inline void fetch(const T* p, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof(T)) __builtin_prefetch(p + i, 0, 3);
}

template <int R, class T>
static void attend_rows(const Look& look) {
    float maximum[R], total[R], *found = look.scratch, *sums = look.scratch + 4 * look.page_size;
    int64_t newest = 0, oldest = INT64_MAX;
    for (int r = 0; r < R; r++) {
        maximum[r] = -INFINITY;
        total[r] = 0;
        const int64_t first = look.window ? look.last[r] - look.window + 1 : 0;
        newest = look.last[r] > newest ? look.last[r] : newest;
        oldest = first < oldest ? first : oldest;
    }
    memset(sums, 0, (size_t)(R * look.padded) * 4);
    const int64_t n = look.page_size;
    for (int64_t page = (oldest > 0 ? oldest : 0) / n; page <= newest / n; page++) {
        const int64_t start = page * n, place = look.pages[page] * look.page_stride, left = newest - start + 1;
        const int64_t count = left < n ? left : n, chunks = (count + KEYS - 1) / KEYS;
        const T* values = (const T*)look.values + place * look.padded + look.value_offset;
        fetch(values, count * look.padded);
        scores<R, T>(look, (const T*)look.keys + place * look.head_size + look.key_offset, chunks, found);
        for (int r = 0; r < R; r++) {
            const float factor = weigh(look, r, start, chunks * KEYS, found + r * n, &maximum[r], &total[r]);
            if (factor != 1)
                for (int64_t e = 0; e < look.padded; e += LANES) store(sums + r * look.padded + e, load(sums + r * look.padded + e) * all(factor));
        }
        if (page < newest / n) {
            const int64_t next = newest - start - n + 1, tokens = next < n ? (next + KEYS - 1) / KEYS * KEYS : n;
            fetch((const T*)look.keys + look.pages[page + 1] * look.page_stride * look.head_size + look.key_offset, tokens * look.head_size);
        }
        mix<R, T>(look, values, found, count, sums);
    }
    for (int r = 0; r < R; r++)
        for (int64_t e = 0; e < look.head_size; e++) look.out[r][e] = sums[r * look.padded + e] / total[r];
}

template <class T>
static void attend_of(const Look& look) {
    switch (look.rows) {
        case 1: attend_rows<1, T>(look); break;
        case 2: attend_rows<2, T>(look); break;
        case 3: attend_rows<3, T>(look); break;
        default: attend_rows<4, T>(look); break;
    }
}

static void attend(const Look& look) {
    if (look.format == BF16) attend_of<uint16_t>(look);
    else attend_of<float>(look);
}
