// By AVX2: eight numbers of a head at a time.
#ifdef __x86_64__

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "decode/attention.h"

#define IBERIS_TARGET gnu::target("avx2,fma")

namespace iberis {
namespace {

#include "decode/eight.h"

#include "decode/attention_chunk.h"

}  // namespace

template <typename T>
AttendChunk<T> avx2_attend_chunk() {
  return attend_chunk<T>;
}

template AttendChunk<float> avx2_attend_chunk<float>();
template AttendChunk<uint16_t> avx2_attend_chunk<uint16_t>();

}  // namespace iberis

#endif
