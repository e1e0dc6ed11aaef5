// AVX-512 F, BW, VL and DQ: Intel since Skylake-SP (2017), AMD since Zen 4 (2022).
#include "kernels.h"
#define LANES 16
#define VNNI 0
#include "wide.h"

namespace tsuzuri {
namespace avx512 {
#include "lanes.h"
#include "avx512.h"
}  // namespace avx512

const Kernels* kernels_avx512() {
    static const Kernels found = {"avx512", 8, avx512::prepare, avx512::rms_norm, avx512::layer_norm, avx512::tile, avx512::gate, avx512::shape, avx512::rotate, avx512::attend};
    return &found;
}

}  // namespace tsuzuri
