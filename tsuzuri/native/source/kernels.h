// What every variant of the kernels provides, and the layout they all read.
//
// In: weights packed in blocks of 16 rows, activations prepared in columns. Out: sums in float32.
// The same bytes serve every processor: a block is walked four (8 or 4 bits), two (bfloat16) or one (float32) inputs at a
// time, and at each step the 16 rows lie side by side, so that one broadcast of the activations meets 16 rows.
//
//   format   one block of 16 rows, K inputs                                          bytes a weight
//   f32      [K][16] float                                                                 4
//   bf16     [K/2][16][2] bfloat16, K rounded up to even                                   2
//   q8       [K/32][16] float16 scales, to 64 bytes; [K/32][8][16][4] int8                 1.0625
//   q4       the same scales;                        [K/32][4][16][4] two nibbles          0.5625
//   q8_16    as q8; its activations are in 16 bits instead of 8                            1.0625
//
// A byte of q4 holds input i of its group of 32 in the low and input i + 16 in the high nibble, as GGML's q4_0 does; a
// nibble n stands for (n - 8) · scale. The numbers are those of GGML's q8_0 and q4_0; only their order is ours.
// Of q8_16 an activation is scale · (q + r / FINER), two signed bytes: what the first leaves over is rounded once more.
#pragma once
#include <math.h>
#include <string.h>

#include <cstdint>

namespace tsuzuri {

enum Format : int32_t { F32 = 0, BF16 = 1, Q8 = 2, Q4 = 3, Q8_16 = 4 };
enum Gate : int32_t { GATE_NONE = 0, GATE_SILU = 1, GATE_GELU = 2, GATE_GELU_TANH = 3 };
enum Shaping : int32_t { SHAPE_NONE = 0, SHAPE_GELU = 1, SHAPE_RELU2 = 2, SHAPE_SILU = 3, SHAPE_GELU_TANH = 4 };

constexpr int64_t ROWS = 16;   // of a block
constexpr int64_t GROUP = 32;  // inputs that share a scale
constexpr int64_t KEYS = 16;   // a page holds a multiple of as many tokens
constexpr int MOST_COLUMNS = 8;  // of one tile
// Weights are asked for so many bytes before they are multiplied: what a core asks for by itself comes too late where little is computed
// with a byte (docs/log.md has what that costs, and other distances).
constexpr int64_t AHEAD = 4096;

constexpr int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr int64_t scales_bytes(int64_t k) { return aligned(k / GROUP * ROWS * 2); }
// A prepared column: float32 [K]; or int8 [K], its absolute values [K], a float32 scale and an int32 correction a group. Of q8_16
// behind that (`finer`) once more int8 [K], its absolute values [K] and an int32 correction a group.
constexpr int64_t column_bytes(int64_t k) { return aligned(4 * k + k / 2); }
constexpr int64_t finer(int64_t k) { return 2 * k + k / GROUP * 8; }
// Every variant rounds the product before it takes q away from it (hence the empty `asm`s): a fused one would give another r.
constexpr float FINER = 254.0f;  // steps of r in one of q: what is left over is at most half a step, so r is at most 127

// Queries of one tile that look at the same keys: rows (token, head of the group), the page table of their sequence.
struct Look {
    const float* queries[4];  // each [padded head size]
    float* out[4];            // each [head size]
    int64_t last[4];          // the newest position that the row may see
    float slope[4];           // ALiBi; 0 without
    int32_t rows;             // 1 to 4
    int32_t head_size, padded, page_size;
    int64_t window;           // 0: everything
    float scale, cap;         // cap 0: none
    const int32_t* pages;
    const void *keys, *values;  // of this layer and key/value head 0; key [page][head][page_size/16][E][16], value [page][head][page_size][padded]
    int64_t page_stride;  // kv_heads · page_size
    int64_t key_offset, value_offset;  // of the head within a page, in elements
    int32_t format;           // F32 or BF16
    float* scratch;           // [4][page_size] probabilities, [4][padded] sums
};

struct Kernels {
    const char* name;
    int most_columns;
    // x [K] float32 -> one prepared column
    void (*prepare)(int32_t format, const float* x, int64_t k, uint8_t* column);
    void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out);
    // 16 rows × `count` columns -> out [count][16]
    void (*tile)(int32_t format, const uint8_t* block, int64_t k, const uint8_t* columns, int64_t column_stride, int count, float* out);
    void (*gate)(int32_t kind, const float* gate, const float* up, float* out, int64_t n);
    void (*shape)(int32_t kind, float* x, int64_t n);
    void (*rotate)(float* head, const float* cos, const float* sin, int64_t turned, int32_t pairing);
    void (*attend)(const Look& look);
};

const Kernels* kernels_scalar();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_avx512vnni();
const Kernels* kernels_neon();

}  // namespace tsuzuri
