// Plain C++, for every CPU.
#include <cmath>

#include "decode/int8_kernel.h"

namespace iberis {
namespace {

float from_bf16(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

void multiply(const RowTile& rows, const WeightBlock& weights, float* out) {
  std::fill_n(out, rows.rows * kBlock, 0.0F);
  for (int64_t g = 0; g < rows.groups; ++g) {
    const int8_t* values = weights.values + g * rows.group * kBlock;
    const uint16_t* scales = weights.scales + g * kBlock;
    for (int r = 0; r < rows.rows; ++r) {
      const int16_t* x = rows.values + (g * rows.rows + r) * rows.group;
      const float row_scale = rows.scales[g * rows.rows + r];
      int32_t dots[kBlock] = {};
      for (int i = 0; i < rows.group; i += 2) {
        const int8_t* pair = values + i * kBlock;
        for (int o = 0; o < kBlock; ++o) dots[o] += pair[2 * o] * x[i] + pair[2 * o + 1] * x[i + 1];
      }
      float* sums = out + r * kBlock;
      for (int o = 0; o < kBlock; ++o) {
        sums[o] = std::fma(static_cast<float>(dots[o]), from_bf16(scales[o]) * row_scale, sums[o]);
      }
    }
  }
}

void quantize(const float* x, int64_t inputs, const RowTile& tile, int row) { quantize_row(x, inputs, tile, row); }

}  // namespace

const Int8Kernel kPortableInt8 = {"portable", quantize, multiply};

}  // namespace iberis
