// Where the instructions of AVX-512 come from: the compiler, or (tests/native alone) a header that computes each of them in plain
// C++, so that a processor without them can test the variants.
#pragma once
#include <immintrin.h>
#ifdef TSUZURI_EMULATED
#include "emulated.h"
#define ROUNDED(x)
#else
#define ROUNDED(x) asm("" : "+v"(x))  // not fused with what follows
#endif
