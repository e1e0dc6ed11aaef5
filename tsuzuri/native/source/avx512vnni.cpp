// AVX-512 with VNNI: Intel since Cascade Lake (2019), AMD since Zen 4 (2022).
#include "kernels.h"
#define LANES 16
#define VNNI 1
#include "wide.h"

namespace tsuzuri {
namespace avx512vnni {
#include "lanes.h"
#include "avx512.h"
}  // namespace avx512vnni

const Kernels* kernels_avx512vnni() {
    static const Kernels found = {"avx512vnni", 8, avx512vnni::prepare, avx512vnni::rms_norm, avx512vnni::layer_norm, avx512vnni::tile, avx512vnni::gate, avx512vnni::shape, avx512vnni::rotate, avx512vnni::attend};
    return &found;
}

}  // namespace tsuzuri
