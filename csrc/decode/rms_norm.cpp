#include "decode/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "decode/pool.h"

#define IBERIS_TARGET

namespace iberis {
namespace {

#include "decode/eight.h"

constexpr int64_t kLeastNumbers = 1 << 15;  // worth a thread's while

template <typename T>
float sum_of_squares(const T* x, int64_t size) {
  Eight sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kEight <= size; i += 2 * kEight) {
    for (int64_t c = 0; c < 2; ++c) {
      Eight numbers;
      load(x + i + c * kEight, numbers);
      sums[c] += numbers * numbers;
    }
  }
  float total = total_of(sums[0] + sums[1]);
  for (; i < size; ++i) total += widened(x[i]) * widened(x[i]);
  return total;
}

}  // namespace

template <typename T>
void rms_norm(const Rows<const T>& x, int64_t rows, int64_t size, float eps, T* out, int threads) {
  const int64_t least = std::max<int64_t>(1, kLeastNumbers / std::max<int64_t>(1, size));
  Pool::shared().run(rows, least, threads, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* from = x[r];
      T* to = out + r * size;
      const float scale = 1.0F / std::sqrt(sum_of_squares(from, size) / static_cast<float>(size) + eps);
      for (int64_t i = 0; i < size; ++i) narrow(widened(from[i]) * scale, to + i);
    }
  });
}

template void rms_norm(const Rows<const float>&, int64_t, int64_t, float, float*, int);
template void rms_norm(const Rows<const uint16_t>&, int64_t, int64_t, float, uint16_t*, int);

}  // namespace iberis
