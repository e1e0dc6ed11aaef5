// Where the instructions of AVX-512 come from: the compiler, or SIMDe, which computes each of them in plain C++ so that a
// processor without them can test the variants (tests/native; never in the library that is installed).
#pragma once
#ifdef TSUZURI_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#else
#include <immintrin.h>
#endif
