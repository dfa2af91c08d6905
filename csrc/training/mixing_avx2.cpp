// By AVX2: eight numbers at a time.
#ifdef __x86_64__

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "training/mixing.h"

#define IBERIS_TARGET gnu::target("avx2,fma")
#define IBERIS_LANES 8

namespace iberis {
namespace {

#include "lanes.h"

#include "training/mixing_tile.h"

}  // namespace

const MixingKernel kAvx2Mixing = {"avx2", mix_tile<float>, mix_tile<uint16_t>, mix_tile_backward<float>,
                                   mix_tile_backward<uint16_t>};

}  // namespace iberis

#endif
