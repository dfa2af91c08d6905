// By AVX2: eight logits at a time.
#ifdef __x86_64__

#include <algorithm>
#include <cstring>

#include "decode/bf16.h"
#include "training/softcap.h"

#define IBERIS_TARGET gnu::target("avx2,fma")
#define IBERIS_LANES 8

namespace iberis {
namespace {

#include "lanes.h"

#include "training/softcap_rows.h"

}  // namespace

const SoftcapKernel kAvx2Softcap = {"avx2", softcap_rows<float>, softcap_rows<uint16_t>};

}  // namespace iberis

#endif
