// By AVX-512: sixteen logits at a time.
#ifdef __x86_64__

#include <algorithm>
#include <cstring>

#include "decode/bf16.h"
#include "training/softcap.h"

#define IBERIS_TARGET gnu::target("avx512f,avx512bw,avx512vl,avx512dq")
#define IBERIS_LANES 16

namespace iberis {
namespace {

#include "lanes.h"

#include "training/softcap_rows.h"

}  // namespace

const SoftcapKernel kAvx512Softcap = {"avx512", softcap_rows<float>, softcap_rows<uint16_t>};

}  // namespace iberis

#endif
