// Plain C++, for every CPU.
#include <algorithm>
#include <cstring>

#include "decode/bf16.h"
#include "training/softcap.h"

#define IBERIS_TARGET
#define IBERIS_LANES 8

namespace iberis {
namespace {

#include "lanes.h"

#include "training/softcap_rows.h"

}  // namespace

const SoftcapKernel kPortableSoftcap = {"portable", softcap_rows<float>, softcap_rows<uint16_t>};

}  // namespace iberis
