// AVX-512 with VNNI and BF16: Intel Cooper Lake (2020) and since Sapphire Rapids (2023), AMD since Zen 4 (2022).
#include "kernels.h"
#define LANES 16
#define VNNI 1
#define NARROW 1
#include "wide.h"

namespace tsuzuri {
namespace avx512bf16 {
#include "lanes.h"
#include "avx512.h"
}  // namespace avx512bf16

const Kernels* kernels_avx512bf16() {
    static const Kernels found = {"avx512bf16", 8, avx512bf16::prepare, avx512bf16::rms_norm, avx512bf16::layer_norm, avx512bf16::tile, avx512bf16::gate, avx512bf16::shape, avx512bf16::rotate, avx512bf16::attend};
    return &found;
}

}  // namespace tsuzuri
