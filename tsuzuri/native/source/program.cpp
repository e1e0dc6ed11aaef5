// See program.h. Few tokens: each worker prepares (norm, quantise) the columns for itself, which costs less than a barrier.
// Many: the columns are prepared in a phase of their own, and attention first places all keys and values, then looks.
#include "program.h"

#include <cmath>
#include <cstring>

namespace tsuzuri {

namespace {

constexpr int32_t FEW = 2;              // tokens that each worker prepares for itself
constexpr int64_t COLUMNS_AT_ONCE = 64;  // of a unit: their prepared columns stay in the second-level cache
constexpr int64_t LEAST_BYTES = 16384;   // of weights that are worth a unit

int64_t bytes_of_block(const Operation& op) {
    switch (op.format) {
        case Q8:
        case Q8_16: return scales_bytes(op.columns) + op.columns * ROWS;
        case Q4: return scales_bytes(op.columns) + op.columns * ROWS / 2;
        case BF16: return (op.columns + 1) / 2 * 2 * ROWS * 2;
        default: return op.columns * ROWS * 4;
    }
}
int64_t blocks_of(const Operation& op) { return (op.rows + ROWS - 1) / ROWS; }

float half(const uint8_t* p) {  // float16; only of scales, so neither infinity nor NaN
    uint16_t h;
    memcpy(&h, p, 2);
    const int exponent = h >> 10 & 31, fraction = h & 1023;
    const float x = exponent ? std::ldexp(float(fraction | 1024), exponent - 25) : std::ldexp(float(fraction), -24);
    return h >> 15 ? -x : x;
}

// One number of a packed matrix (an embedding reads a row of what the head reads as blocks).
float number(const Operation& op, const uint8_t* block, int64_t r, int64_t i) {
    if (op.format == F32) return reinterpret_cast<const float*>(block)[i * ROWS + r];
    if (op.format == BF16) {
        const uint32_t bits = uint32_t(reinterpret_cast<const uint16_t*>(block)[(i / 2 * ROWS + r) * 2 + i % 2]) << 16;
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    const int64_t g = i / GROUP, j = i % GROUP;
    const float scale = half(block + (g * ROWS + r) * 2);
    const uint8_t* w = block + scales_bytes(op.columns);
    if (op.format != Q4) return float(int8_t(w[g * 512 + j / 4 * 64 + r * 4 + j % 4])) * scale;
    const uint8_t byte = w[g * 256 + j % 16 / 4 * 64 + r * 4 + j % 4];
    return float((j < 16 ? byte & 15 : byte >> 4) - 8) * scale;
}

}  // namespace

uint8_t* Program::Scratch::at(int64_t size) {
    if (int64_t(bytes.size()) < size + 64) bytes.resize(size_t(size + 64));
    const uintptr_t start = reinterpret_cast<uintptr_t>(bytes.data());
    return bytes.data() + (64 - start % 64) % 64;
}

Program::Program(const Kernels* kernels, Pool* pool, const Operation* operations, int32_t count)
    : kernels_(kernels), pool_(pool), operations_(operations, operations + count), scratch_(size_t(pool->threads())) {}

void Program::plan(const Step& step) {
    step_ = &step;
    jobs_.clear();
    phases_.clear();
    tiles_.clear();
    alone_ = true;
    for (int32_t t = 1; t < step.count; t++) alone_ = alone_ && step.sequences[t] != step.sequences[t - 1];
    int64_t widest = 0;
    const auto add = [&](const Operation& op, Part part, int32_t tokens, int64_t units, int64_t grain) {
        jobs_.push_back({&op, part, tokens});
        phases_.push_back({units, grain});
    };
    for (const Operation& op : operations_) {
        const int32_t tokens = op.chosen ? step.chosen_count : step.count;
        if (op.kind == EMBED || op.kind == NORM) {
            add(op, WHOLE, tokens, tokens, 4);
        } else if (op.kind == MATMUL) {
            if (tokens > FEW) {
                widest = op.columns > widest ? op.columns : widest;
                add(op, PREPARE, tokens, tokens, 2);
            }
            const int64_t units = blocks_of(op) / (op.gate ? 2 : 1), bytes = bytes_of_block(op) * (op.gate ? 2 : 1);
            const int64_t chunks = (tokens + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE;
            add(op, MULTIPLY, tokens, tokens ? units * chunks : 0, tokens > FEW ? 1 : LEAST_BYTES / bytes + 1);
        } else {
            const int32_t group = op.heads / op.kv_heads;
            if (tiles_.empty()) {
                const int32_t most = alone_ ? 1 : group >= 4 ? 2 : 8 / group;
                for (int32_t t = 0; t < step.count;) {
                    int32_t n = 1;
                    while (n < most && t + n < step.count && step.sequences[t + n] == step.sequences[t]) n++;
                    tiles_.push_back({t, n});
                    t += n;
                }
            }
            if (!alone_) add(op, PLACE, tokens, int64_t(tokens) * op.kv_heads, 4);
            add(op, LOOK, tokens, int64_t(tiles_.size()) * op.kv_heads, 1);
        }
    }
    if (widest) {
        const size_t needed = size_t(column_bytes(widest) * step.count + 64);
        if (columns_.size() < needed) columns_.resize(needed);
    }
    for (Scratch& own : scratch_) own.phase = -1;
}

void Program::run(const Step& step) {
    plan(step);
    pool_->run(phases_, work, this);
}

void Program::work(void* self, int phase, int64_t begin, int64_t end, int worker) {
    Program& program = *static_cast<Program*>(self);
    const Job& job = program.jobs_[size_t(phase)];
    const Operation& op = *job.op;
    switch (job.part) {
        case WHOLE: op.kind == EMBED ? program.embed(op, begin, end) : program.norm(op, begin, end, worker); break;
        case PREPARE: {
            uint8_t* columns = program.columns_.data() + (64 - reinterpret_cast<uintptr_t>(program.columns_.data()) % 64) % 64;
            float* normed = reinterpret_cast<float*>(program.scratch_[size_t(worker)].at(column_bytes(op.columns)));
            for (int64_t t = begin; t < end; t++) program.prepare(op, t, columns + t * column_bytes(op.columns), normed);
            break;
        }
        case MULTIPLY: program.multiply(job, phase, begin, end, worker); break;
        case PLACE:
            for (int64_t u = begin; u < end; u++) program.place(op, u / op.kv_heads, u % op.kv_heads);
            break;
        case LOOK:
            for (int64_t u = begin; u < end; u++) {
                const Tile& tile = program.tiles_[size_t(u / op.kv_heads)];
                if (program.alone_) program.place(op, tile.first, u % op.kv_heads);
                program.look(op, tile, u % op.kv_heads, worker);
            }
            break;
    }
}

void Program::embed(const Operation& op, int64_t begin, int64_t end) const {
    for (int64_t t = begin; t < end; t++) {
        const int64_t id = step_->ids[t];
        const uint8_t* block = op.weights + id / ROWS * bytes_of_block(op);
        float* out = op.output + t * op.output_stride;
        for (int64_t i = 0; i < op.columns; i++) out[i] = number(op, block, id % ROWS, i) * op.factor;
        if (const float* row = op.cos)
            for (int64_t i = 0; i < op.columns; i++) out[i] += row[step_->positions[t] * op.columns + i];
    }
}

void Program::norm(const Operation& op, int64_t begin, int64_t end, int worker) {
    float* aside = op.add ? reinterpret_cast<float*>(scratch_[size_t(worker)].at(op.columns * 4)) : nullptr;
    if (op.add) scratch_[size_t(worker)].phase = -1;
    for (int64_t t = begin; t < end; t++) {
        const float* x = op.input + t * op.input_stride;
        float* out = op.output + t * op.output_stride;
        float* normed = op.add ? aside : out;
        if (op.norm == NORM_RMS) kernels_->rms_norm(x, op.norm_weight, op.epsilon, op.columns, normed);
        else kernels_->layer_norm(x, op.norm_weight, op.norm_bias, op.epsilon, op.columns, normed);
        if (op.add)
            for (int64_t i = 0; i < op.columns; i++) out[i] += normed[i];
    }
}

void Program::prepare(const Operation& op, int64_t token, uint8_t* column, float* normed) const {
    const float* x = op.input + (op.chosen ? step_->chosen[token] : token) * op.input_stride;
    if (op.norm == NORM_RMS) kernels_->rms_norm(x, op.norm_weight, op.epsilon, op.columns, normed);
    else if (op.norm == NORM_LAYER) kernels_->layer_norm(x, op.norm_weight, op.norm_bias, op.epsilon, op.columns, normed);
    kernels_->prepare(op.format, op.norm == NORM_NONE ? x : normed, op.columns, column);
}

void Program::multiply(const Job& job, int phase, int64_t begin, int64_t end, int worker) {
    const Operation& op = *job.op;
    const int64_t stride = column_bytes(op.columns), bytes = bytes_of_block(op);
    const uint8_t* columns;
    if (job.tokens > FEW) {
        columns = columns_.data() + (64 - reinterpret_cast<uintptr_t>(columns_.data()) % 64) % 64;
    } else {
        Scratch& own = scratch_[size_t(worker)];
        uint8_t* base = own.at(stride * (FEW + 1));
        if (own.phase != phase) {
            for (int32_t t = 0; t < job.tokens; t++) prepare(op, t, base + t * stride, reinterpret_cast<float*>(base + FEW * stride));
            own.phase = phase;
        }
        columns = base;
    }
    const int64_t chunks = (job.tokens + COLUMNS_AT_ONCE - 1) / COLUMNS_AT_ONCE;
    alignas(64) float sums[MOST_COLUMNS * ROWS], up[MOST_COLUMNS * ROWS];
    for (int64_t u = begin; u < end; u++) {
        const int64_t unit = u / chunks, from = u % chunks * COLUMNS_AT_ONCE;
        const int64_t to = from + COLUMNS_AT_ONCE < job.tokens ? from + COLUMNS_AT_ONCE : job.tokens;
        const uint8_t* block = op.weights + unit * bytes * (op.gate ? 2 : 1);
        for (int64_t c = from; c < to; c += kernels_->most_columns) {
            const int count = int(to - c < kernels_->most_columns ? to - c : kernels_->most_columns);
            kernels_->tile(op.format, block, op.columns, columns + c * stride, stride, count, sums);
            if (op.gate) kernels_->tile(op.format, block + bytes, op.columns, columns + c * stride, stride, count, up);
            finish(op, unit, c, count, sums, up);
        }
    }
}

void Program::finish(const Operation& op, int64_t unit, int64_t first, int count, const float* sums, const float* up) const {
    const int64_t outputs = op.gate ? op.rows / 2 : op.rows, start = unit * ROWS;
    const int64_t n = outputs - start < ROWS ? outputs - start : ROWS;
    for (int c = 0; c < count; c++) {
        alignas(64) float v[ROWS], w[ROWS];
        memcpy(v, sums + c * ROWS, sizeof v);
        if (op.bias && !op.gate)
            for (int64_t r = 0; r < n; r++) v[r] += op.bias[start + r];
        if (op.gate) {
            memcpy(w, up + c * ROWS, sizeof w);
            if (op.bias)
                for (int64_t r = 0; r < n; r++) {
                    v[r] += op.bias[2 * start + r];
                    w[r] += op.bias[2 * start + ROWS + r];
                }
            kernels_->gate(op.gate, v, w, v, ROWS);
        } else if (op.shape) {
            kernels_->shape(op.shape, v, n);
        }
        float* out = op.output + (first + c) * op.output_stride + start;
        if (op.factor != 1)
            for (int64_t r = 0; r < n; r++) v[r] *= op.factor;
        if (op.cap > 0)
            for (int64_t r = 0; r < n; r++) v[r] = op.cap * std::tanh(v[r] / op.cap);
        if (op.add)
            for (int64_t r = 0; r < n; r++) out[r] += v[r];
        else memcpy(out, v, size_t(n) * 4);
    }
}

// Norm and rotation of one key/value head of a token and of the queries that share it; key and value go to their page.
void Program::place(const Operation& op, int64_t token, int64_t head) const {
    const int32_t group = op.heads / op.kv_heads, size = op.head_size;
    float* queries = const_cast<float*>(op.input) + token * op.input_stride + head * group * size;
    float* key = const_cast<float*>(op.input) + token * op.input_stride + (op.heads + head) * size;
    const float* value = key + int64_t(op.kv_heads) * size;
    const int64_t position = step_->positions[token];
    const float *cos = op.cos + position * (op.turned / 2), *sin = op.sin + position * (op.turned / 2);
    for (int32_t h = 0; h <= group; h++) {
        float* x = h < group ? queries + h * size : key;
        const float* weight = h < group ? op.query_norm : op.key_norm;
        if (weight) kernels_->rms_norm(x, weight, op.epsilon, size, x);
        if (op.turned) kernels_->rotate(x, cos, sin, op.turned, op.pairing);
    }
    const int64_t page = step_->pages[step_->sequences[token] * step_->pages_stride + position / op.page_size], slot = position % op.page_size;
    const int64_t keys = (page * op.kv_heads + head) * size * op.page_size + slot / KEYS * size * KEYS + slot % KEYS;
    const int64_t values = ((page * op.kv_heads + head) * op.page_size + slot) * op.padded;
    const auto narrow = [](float x) {
        uint32_t bits;
        memcpy(&bits, &x, 4);
        return uint16_t((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 64 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    };
    for (int64_t e = 0; e < size; e++) {
        if (op.kv_format == BF16) {
            static_cast<uint16_t*>(op.keys)[keys + e * KEYS] = narrow(key[e]);
            static_cast<uint16_t*>(op.values)[values + e] = narrow(value[e]);
        } else {
            static_cast<float*>(op.keys)[keys + e * KEYS] = key[e];
            static_cast<float*>(op.values)[values + e] = value[e];
        }
    }
}

void Program::look(const Operation& op, const Tile& tile, int64_t head, int worker) {
    const int32_t group = op.heads / op.kv_heads;
    Look look{};
    look.head_size = op.head_size;
    look.padded = op.padded;
    look.page_size = op.page_size;
    look.window = op.window;
    look.scale = op.scale;
    look.cap = op.score_cap;
    look.pages = step_->pages + step_->sequences[tile.first] * step_->pages_stride;
    look.keys = op.keys;
    look.values = op.values;
    look.page_stride = int64_t(op.kv_heads) * op.page_size;
    look.key_offset = head * op.head_size * op.page_size;
    look.value_offset = head * op.page_size * op.padded;
    look.format = op.kv_format;
    look.scratch = reinterpret_cast<float*>(scratch_[size_t(worker)].at(4 * 4 * (op.page_size + op.padded)));
    scratch_[size_t(worker)].phase = -1;
    const int32_t rows = tile.count * group;
    for (int32_t from = 0; from < rows; from += 4) {
        look.rows = rows - from < 4 ? rows - from : 4;
        for (int32_t r = 0; r < look.rows; r++) {
            const int64_t token = tile.first + (from + r) / group, query = head * group + (from + r) % group;
            look.queries[r] = op.input + token * op.input_stride + query * op.head_size;
            look.out[r] = op.output + token * op.output_stride + query * op.head_size;
            look.last[r] = step_->positions[token];
            look.slope[r] = op.slopes ? op.slopes[query] : 0;
        }
        kernels_->attend(look);
    }
}

}  // namespace tsuzuri
