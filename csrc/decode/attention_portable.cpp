// Plain C++, for every CPU.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "decode/attention.h"

#define IBERIS_TARGET

namespace iberis {
namespace {

#include "decode/eight.h"

#include "decode/attention_chunk.h"

}  // namespace

template <typename T>
AttendChunk<T> portable_attend_chunk() {
  return attend_chunk<T>;
}

template AttendChunk<float> portable_attend_chunk<float>();
template AttendChunk<uint16_t> portable_attend_chunk<uint16_t>();

}  // namespace iberis
