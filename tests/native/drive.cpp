// Every kernel table against the scalar one on random sizes, the pool under stress, and a small program in many threads.
// Compiled by test_sanitized.py with sanitizers, with SIMDe in place of AVX-512, or for Arm under an emulator.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "pool.h"
#ifndef ONLY_POOL
#include "kernels.h"
#include "program.h"
#endif

using namespace tsuzuri;

static std::mt19937 random_numbers(1);
static int upto(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_numbers); }

#define CHECK(condition, ...)                                                   \
    if (!(condition)) {                                                         \
        std::printf("line %d: %s; ", __LINE__, #condition);                     \
        std::printf(__VA_ARGS__);                                               \
        std::printf("\n");                                                      \
        std::exit(1);                                                           \
    }

// ── the pool: every unit once, and no unit before the phase ahead of it is done

struct Stress {
    std::vector<Phase> phases;
    std::vector<std::vector<std::atomic<int>>> seen;
    std::vector<std::atomic<int64_t>> done;
};

static void stress_work(void* context, int phase, int64_t begin, int64_t end, int) {
    Stress& s = *static_cast<Stress*>(context);
    if (phase > 0 && s.done[size_t(phase - 1)].load() != s.phases[size_t(phase - 1)].units) std::abort();
    for (int64_t u = begin; u < end; u++) {
        s.seen[size_t(phase)][size_t(u)]++;
        for (volatile int i = 0; i < int(u * 7919 % 2000); i = i + 1) {}  // some units take longer: others must wait
    }
    s.done[size_t(phase)] += end - begin;
}

static void stress(Pool& pool, int runs) {
    for (int run = 0; run < runs; run++) {
        Stress s;
        const int count = upto(1, 12);
        std::vector<std::vector<std::atomic<int>>> seen;
        for (int p = 0; p < count; p++) {
            s.phases.push_back({upto(0, 40), upto(1, 4)});
            seen.emplace_back(size_t(s.phases.back().units));
        }
        s.seen = std::move(seen);
        s.done = std::vector<std::atomic<int64_t>>(size_t(count));
        pool.run(s.phases, stress_work, &s);
        for (int p = 0; p < count; p++)
            for (auto& n : s.seen[size_t(p)]) CHECK(n == 1, "phase %d: a unit ran %d times", p, n.load());
    }
}

static void pools(int runs) {
    for (int threads : {1, 2, 3, 5}) {
        Pool pool(threads);
        stress(pool, runs);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));  // until the workers sleep
        stress(pool, 3);
    }
    Pool shared(3);  // two callers: one run at a time
    Stress one, other;
    std::thread second([&] {
        for (int i = 0; i < runs; i++) {
            Stress s;
            s.phases = {{7, 1}, {3, 1}};
            std::vector<std::vector<std::atomic<int>>> seen;
            seen.emplace_back(7);
            seen.emplace_back(3);
            s.seen = std::move(seen);
            s.done = std::vector<std::atomic<int64_t>>(2);
            shared.run(s.phases, stress_work, &s);
        }
    });
    stress(shared, runs);
    second.join();
}

#ifndef ONLY_POOL

// ── kernels

struct Bytes {  // exactly as many as are needed, on a cache line: a byte read past the end is found by the sanitizer
    uint8_t* p;
    explicit Bytes(int64_t n) : p(static_cast<uint8_t*>(std::aligned_alloc(64, size_t((n + 63) / 64 * 64)))) {}
    ~Bytes() { std::free(p); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
};

static float normal() { return std::normal_distribution<float>(0, 1)(random_numbers); }

static int64_t block_bytes(int format, int64_t k) {
    return format == Q8 || format == Q8_16 ? scales_bytes(k) + k * 16 : format == Q4 ? scales_bytes(k) + k * 8 : format == BF16 ? (k + 1) / 2 * 64 : k * 64;
}

static void fill_block(int format, int64_t k, uint8_t* block) {
    if (format == F32) {
        for (int64_t i = 0; i < k * ROWS; i++) reinterpret_cast<float*>(block)[i] = normal();
    } else if (format == BF16) {
        for (int64_t i = 0; i < (k + 1) / 2 * 32; i++) {
            const float x = i / 32 * 2 + i % 2 < k ? normal() : 0;
            uint32_t bits;
            memcpy(&bits, &x, 4);
            reinterpret_cast<uint16_t*>(block)[i] = uint16_t(bits >> 16);
        }
    } else {
        memset(block, 0, size_t(scales_bytes(k)));
        for (int64_t i = 0; i < k / GROUP * ROWS; i++) reinterpret_cast<uint16_t*>(block)[i] = uint16_t(upto(0, 1) << 15 | upto(0x0400, 0x2fff));
        for (int64_t i = scales_bytes(k); i < block_bytes(format, k); i++) {
            block[i] = uint8_t(upto(0, 255));
            if (format != Q4 && block[i] == 0x80) block[i] = 0x81;  // -128 is no number of q8_0
        }
    }
}

static void near(const float* a, const float* b, int64_t n, float scale, const char* what, const Kernels& k) {
    for (int64_t i = 0; i < n; i++) CHECK(std::fabs(a[i] - b[i]) <= scale || (std::isnan(a[i]) && std::isnan(b[i])), "%s of %s: %g against %g", what, k.name, a[i], b[i]);
}

static void tiles(const Kernels& tried, const Kernels& plain, int rounds) {
    for (int round = 0; round < rounds; round++)
        for (int format : {F32, BF16, Q8, Q4, Q8_16}) {
            const int64_t k = format >= Q8 ? GROUP * upto(1, 12) : upto(1, 200), stride = column_bytes(k);
            const int count = upto(1, tried.most_columns);
            Bytes block(block_bytes(format, k)), mine(stride * count), theirs(stride * count);
            fill_block(format, k, block.p);
            float sums[MOST_COLUMNS * ROWS], wanted[MOST_COLUMNS * ROWS], size = 0;
            for (int c = 0; c < count; c++) {
                std::vector<float> x(static_cast<size_t>(k));
                const float loud = std::exp(3 * normal());
                for (auto& v : x) v = normal() * loud;
                if (upto(0, 9) == 0) std::fill(x.begin(), x.begin() + std::min<int64_t>(k, GROUP), 0.0f);
                tried.prepare(format, x.data(), k, mine.p + c * stride);
                plain.prepare(format, x.data(), k, theirs.p + c * stride);
                if (format >= Q8) CHECK(!memcmp(mine.p + c * stride, theirs.p + c * stride, size_t(k)), "activations of %s", tried.name);
                if (format == Q8_16)
                    CHECK(!memcmp(mine.p + c * stride + finer(k), theirs.p + c * stride + finer(k), size_t(k)), "rests of %s", tried.name);
                for (auto v : x) size += v * v;
            }
            tried.tile(format, block.p, k, mine.p, stride, count, sums);
            for (int c = 0; c < count; c += plain.most_columns)
                plain.tile(format, block.p, k, theirs.p + c * stride, stride, std::min(count - c, plain.most_columns), wanted + c * ROWS);
            float most = 0;
            for (int i = 0; i < count * ROWS; i++) most = std::max(most, std::fabs(wanted[i]));
            near(sums, wanted, count * ROWS, (most + std::sqrt(size)) * 2e-6f * std::sqrt(float(k)), "a tile", tried);
            for (int c = 0; c < count; c++) {  // a column gets the same bits alone
                float alone[ROWS];
                tried.tile(format, block.p, k, mine.p + c * stride, stride, 1, alone);
                CHECK(!memcmp(alone, sums + c * ROWS, sizeof alone), "format %d of %s: a column depends on its neighbours", format, tried.name);
            }
        }
}

static void odd_numbers(const Kernels& tried) {
    for (int format : {Q8, Q4, Q8_16})
        for (float odd : {NAN, INFINITY, -INFINITY}) {
            const int64_t k = 64;
            Bytes block(block_bytes(format, k)), column(column_bytes(k));
            fill_block(format, k, block.p);
            std::vector<float> x(64, 1.0f);
            x[size_t(upto(0, 63))] = odd;
            float sums[ROWS];
            tried.prepare(format, x.data(), k, column.p);
            tried.tile(format, block.p, k, column.p, column_bytes(k), 1, sums);
            for (float s : sums) CHECK(std::isnan(s), "%s hides %g", tried.name, odd);
        }
}

static void others(const Kernels& tried, const Kernels& plain, int rounds) {
    for (int round = 0; round < rounds; round++) {
        const int64_t n = upto(1, 100);
        std::vector<float> x(static_cast<size_t>(n)), w(x), b(x), one(x), other(x);
        for (int64_t i = 0; i < n; i++) x[size_t(i)] = normal() * 10, w[size_t(i)] = normal(), b[size_t(i)] = normal();
        tried.rms_norm(x.data(), w.data(), 1e-5f, n, one.data());
        plain.rms_norm(x.data(), w.data(), 1e-5f, n, other.data());
        near(one.data(), other.data(), n, 1e-4f, "rms_norm", tried);
        tried.layer_norm(x.data(), w.data(), b.data(), 1e-5f, n, one.data());
        plain.layer_norm(x.data(), w.data(), b.data(), 1e-5f, n, other.data());
        near(one.data(), other.data(), n, 1e-3f, "layer_norm", tried);
        for (int kind : {GATE_SILU, GATE_GELU, GATE_GELU_TANH}) {
            tried.gate(kind, x.data(), w.data(), one.data(), n);
            plain.gate(kind, x.data(), w.data(), other.data(), n);
            near(one.data(), other.data(), n, 1e-4f, "a gate", tried);
            for (int64_t i = 0; i < n && kind == GATE_SILU; i++)
                CHECK(std::fabs(one[size_t(i)] - x[size_t(i)] / (1 + std::exp(-x[size_t(i)])) * w[size_t(i)]) < 1e-4f, "silu of %s at %g", tried.name, x[size_t(i)]);
        }
    }
}

// A program in random shape: embed, attend, gated product, logits; two numbers of threads and two variants agree.
static std::vector<float> program(const Kernels& kernels, Pool& pool, uint32_t seed, int columns_at_once) {
    random_numbers.seed(seed);
    const int size = 2 * upto(1, 20), kv_heads = upto(1, 3), heads = kv_heads * upto(1, 3), width = 32 * upto(1, 3), inner = upto(1, 50), vocab = upto(2, 40);
    const int padded = (size + 15) / 16 * 16, page_size = 16 * upto(1, 2), pages = 8, tokens = upto(1, pages * page_size - 1), format = upto(0, 4);
    std::vector<Bytes*> kept;
    const auto matrix = [&](int64_t rows, int64_t k, int form) {
        const int64_t blocks = (rows + 15) / 16, bytes = block_bytes(form, k);
        kept.push_back(new Bytes(blocks * bytes));
        for (int64_t i = 0; i < blocks; i++) fill_block(form, k, kept.back()->p + i * bytes);
        Operation op{};
        op.kind = MATMUL, op.format = form, op.rows = rows, op.columns = k, op.weights = kept.back()->p, op.factor = 1;
        return op;
    };
    const int64_t wide = (heads + 2 * kv_heads) * size, whole = (inner + 15) / 16 * 16;
    std::vector<float> x(static_cast<size_t>(tokens * width)), qkv(static_cast<size_t>(tokens * ((wide + 15) / 16 * 16))), mixed(static_cast<size_t>(tokens * heads * size)), h(static_cast<size_t>(tokens * whole)), logits(static_cast<size_t>(tokens * vocab));
    std::vector<float> ones(static_cast<size_t>(width), 0.05f), keys(static_cast<size_t>(pages * kv_heads * size * page_size)), values(static_cast<size_t>(pages * kv_heads * padded * page_size));
    std::vector<float> cos(static_cast<size_t>(pages * page_size * size / 2)), sin(cos);
    for (size_t i = 0; i < cos.size(); i++) cos[i] = std::cos(float(i)), sin[i] = std::sin(float(i));
    std::vector<Operation> ops;
    ops.push_back(matrix(vocab, width, format));
    ops.back().kind = EMBED, ops.back().output = x.data(), ops.back().output_stride = width;
    ops.push_back(matrix(wide, width, format));
    ops.back().input = x.data(), ops.back().input_stride = width, ops.back().output = qkv.data(), ops.back().output_stride = (wide + 15) / 16 * 16;
    ops.back().norm = NORM_RMS, ops.back().norm_weight = ones.data(), ops.back().epsilon = 1e-5f;
    Operation a{};
    a.kind = ATTEND, a.input = qkv.data(), a.input_stride = (wide + 15) / 16 * 16, a.output = mixed.data(), a.output_stride = heads * size, a.heads = heads, a.kv_heads = kv_heads;
    a.head_size = size, a.padded = padded, a.page_size = page_size, a.turned = size, a.cos = cos.data(), a.sin = sin.data(), a.keys = keys.data(), a.values = values.data();
    a.scale = 1 / std::sqrt(float(size)), a.window = upto(0, 1) * upto(1, 20), a.score_cap = float(upto(0, 1)) * 5;
    ops.push_back(a);
    ops.push_back(matrix(2 * whole, width, format));
    ops.back().input = x.data(), ops.back().input_stride = width, ops.back().output = h.data(), ops.back().output_stride = whole, ops.back().gate = GATE_SILU;
    ops.back().norm = NORM_RMS, ops.back().norm_weight = ones.data(), ops.back().epsilon = 1e-5f;
    ops.push_back(matrix(vocab, heads * size, F32));
    ops.back().input = mixed.data(), ops.back().input_stride = heads * size, ops.back().output = logits.data(), ops.back().output_stride = vocab;
    ops.push_back(matrix(vocab, inner, upto(0, 1)));
    ops.back().input = h.data(), ops.back().input_stride = whole, ops.back().output = logits.data(), ops.back().output_stride = vocab, ops.back().add = 1;
    Program made(&kernels, &pool, ops.data(), int32_t(ops.size()));
    std::vector<int32_t> ids, positions, sequences(static_cast<size_t>(tokens), 0), table;
    for (int i = 0; i < tokens; i++) ids.push_back(upto(0, vocab - 1)), positions.push_back(i);
    for (int i = 0; i < pages; i++) table.push_back(pages - 1 - i);
    std::vector<float> found;
    for (int at = 0; at < tokens; at += columns_at_once) {
        const int n = std::min(columns_at_once, tokens - at);
        Step step{n, 0, ids.data() + at, positions.data() + at, sequences.data(), table.data(), pages, nullptr};
        made.run(step);
        found.insert(found.end(), logits.begin(), logits.begin() + n * vocab);
    }
    for (Bytes* each : kept) delete each;
    return found;
}

static void programs(const Kernels& tried, const Kernels& plain, int rounds) {
    Pool one(1), three(3);
    for (int round = 0; round < rounds; round++) {
        const uint32_t seed = uint32_t(1000 + round);
        const auto whole = program(tried, three, seed, 10000), pieces = program(tried, one, seed, 1 + round % 5), wanted = program(plain, one, seed, 10000);
        CHECK(whole.size() == pieces.size() && !memcmp(whole.data(), pieces.data(), whole.size() * 4), "%s: tokens depend on threads or neighbours (%d)", tried.name, round);
        double difference = 0, size = 1e-9;
        for (size_t i = 0; i < whole.size(); i++) difference += std::pow(whole[i] - wanted[i], 2), size += std::pow(wanted[i], 2);
        CHECK(std::sqrt(difference / size) < 0.02, "a program of %s differs by %g (%d)", tried.name, std::sqrt(difference / size), round);
    }
}

#endif

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 30;
    pools(rounds);
#ifndef ONLY_POOL
    const Kernels* tables[] = {TABLES};
    for (const Kernels* tried : tables) {
        tiles(*tried, *kernels_scalar(), rounds);
        odd_numbers(*tried);
        others(*tried, *kernels_scalar(), rounds);
        programs(*tried, *kernels_scalar(), rounds);
        std::printf("%s\n", tried->name);
    }
#endif
    std::printf("done\n");
}
