// By AVX-512: sixteen numbers at a time.
#ifdef __x86_64__

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "training/mixing.h"

#define IBERIS_TARGET gnu::target("avx512f,avx512bw,avx512vl,avx512dq")
#define IBERIS_LANES 16

namespace iberis {
namespace {

#include "lanes.h"

#include "training/mixing_tile.h"

}  // namespace

const MixingKernel kAvx512Mixing = {"avx512", mix_tile<float>, mix_tile<uint16_t>, mix_tile_backward<float>,
                                   mix_tile_backward<uint16_t>};

}  // namespace iberis

#endif
