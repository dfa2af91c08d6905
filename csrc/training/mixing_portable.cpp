// Plain C++, for every CPU.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "training/mixing.h"

#define IBERIS_TARGET
#define IBERIS_LANES 8

namespace iberis {
namespace {

#include "lanes.h"

#include "training/mixing_tile.h"

}  // namespace

const MixingKernel kPortableMixing = {"portable", mix_tile<float>, mix_tile<uint16_t>, mix_tile_backward<float>,
                                   mix_tile_backward<uint16_t>};

}  // namespace iberis
