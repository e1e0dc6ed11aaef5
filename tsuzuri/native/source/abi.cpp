// The C ABI: what `library.py` calls. No exception leaves it; what cannot be had is a null pointer.
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/mman.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#endif

#include "program.h"

using namespace tsuzuri;

#ifndef TSUZURI_BUILD
#define TSUZURI_BUILD "unknown"
#endif

namespace {

#if defined(__x86_64__)
bool narrow() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
[[maybe_unused]] bool wide() {
    return narrow() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}
[[maybe_unused]] bool dots() { return wide() && __builtin_cpu_supports("avx512vnni"); }
#elif defined(__aarch64__) && defined(__linux__)
bool dots() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#elif defined(__aarch64__)
bool dots() { return true; }  // every Apple processor that runs a 64-bit system of today
#endif

// The i-th variant, widest first; null where this build has none or this processor cannot run it. `build.py` says which it compiled.
const Kernels* variant(int32_t index) {
    switch (index) {
#ifdef TSUZURI_AVX512VNNI
        case 0: return dots() ? kernels_avx512vnni() : nullptr;
#endif
#ifdef TSUZURI_AVX512
        case 1: return wide() ? kernels_avx512() : nullptr;
#endif
#ifdef TSUZURI_AVX2
        case 2: return narrow() ? kernels_avx2() : nullptr;
#endif
#ifdef TSUZURI_NEON
        case 3: return dots() ? kernels_neon() : nullptr;
#endif
        case 4: return kernels_scalar();
        default: return nullptr;
    }
}
constexpr int32_t MOST_VARIANTS = 8;

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

const char* tsuzuri_build() { return TSUZURI_BUILD; }

void tsuzuri_sizes(int64_t* operation, int64_t* step) {
    *operation = sizeof(Operation);
    *step = sizeof(Step);
}

// The name of the i-th variant that this processor can run, widest first; null after the last.
const char* tsuzuri_variant(int32_t i) {
    for (int32_t index = 0; index < MOST_VARIANTS; index++)
        if (const Kernels* found = variant(index); found && i-- == 0) return found->name;
    return nullptr;
}

const void* tsuzuri_kernels(const char* name) {
    for (int32_t index = 0; index < MOST_VARIANTS; index++)
        if (const Kernels* found = variant(index); found && !strcmp(found->name, name)) return found;
    return nullptr;
}

void* tsuzuri_pool(int32_t threads) {
    try {
        return new Pool(threads);
    } catch (...) {
        return nullptr;  // the system gives no more threads
    }
}
void tsuzuri_pool_free(void* pool) { delete static_cast<Pool*>(pool); }

void* tsuzuri_program(const void* kernels, void* pool, const Operation* operations, int32_t count) {
    try {
        return new Program(static_cast<const Kernels*>(kernels), static_cast<Pool*>(pool), operations, count);
    } catch (...) {
        return nullptr;
    }
}
void tsuzuri_program_free(void* program) { delete static_cast<Program*>(program); }

int32_t tsuzuri_run(void* program, const Step* step) {
    try {
        static_cast<Program*>(program)->run(*step);
        return 0;
    } catch (...) {
        return 1;  // no memory
    }
}

// Memory for weights: in large pages where the system has them, since a stream over small ones stops at each page's end.
void* tsuzuri_allocate(int64_t bytes) {
    const int64_t large = 2 << 20, whole = (bytes + large - 1) / large * large;
    void* found = std::aligned_alloc(size_t(large), size_t(whole));
#if defined(__linux__)
    if (found) madvise(found, size_t(whole), MADV_HUGEPAGE);
#endif
    return found;
}
void tsuzuri_free(void* memory) { std::free(memory); }

}  // extern "C"
#pragma GCC visibility pop
