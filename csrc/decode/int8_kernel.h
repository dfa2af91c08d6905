// The arithmetic of int8_linear on one block of outputs, in a version for each kind of CPU.
//
// * Weights and rows meet as integers: int8 times int16, summed in int32 over a group, which is exact. A group's sum
//   counts its two scales: sum = fma(float(dot), weight scale * row scale, sum), group after group.
// * So all versions give the same bits, whatever the number of rows that are worked on together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

namespace iberis {

constexpr int kBlock = 16;  // outputs that are interleaved
constexpr int kTile = 16;   // rows for which a weight is read once

// Up to kTile rows, as int16 with a power of two as scale for each group: values [groups, rows, group],
// scales [groups, rows].
struct RowTile {
  int16_t* values;
  float* scales;
  int rows;
  int group;
  int64_t groups;
};

// kBlock outputs: values [groups, group / 2, kBlock, 2], scales [groups, kBlock] in bf16.
struct WeightBlock {
  const int8_t* values;
  const uint16_t* scales;
};

struct Int8Kernel {
  const char* name;
  // Row `row` of the tile from x [inputs]; what is missing to whole groups is zero.
  void (*quantize)(const float* x, int64_t inputs, const RowTile& tile, int row);
  // out [rows, kBlock].
  void (*multiply)(const RowTile& rows, const WeightBlock& weights, float* out);
};

extern const Int8Kernel kPortableInt8;
#ifdef __x86_64__
extern const Int8Kernel kAvx2Int8;
extern const Int8Kernel kAvx512Int8;
#endif

// Inlined into each version, so that the compiler makes the best of it for that kind of CPU.
//
// 15 bits and sign, of which the largest of the group uses 14 or 15: the scale is its exponent's, so scaling is exact.
// A group with an infinity or a NaN becomes NaN. Below 2^-112 the step stays that of 2^-112.
[[gnu::always_inline]] inline void quantize_row(const float* x, int64_t inputs, const RowTile& tile, int row) {
  constexpr int kMostGroup = 64;
  constexpr uint32_t kInfinity = 255;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: a small number added to it is rounded to an integer
  for (int64_t g = 0; g < tile.groups; ++g, x += tile.group) {
    const auto count = static_cast<size_t>(std::min<int64_t>(tile.group, inputs - g * tile.group));
    float numbers[kMostGroup] = {};
    std::memcpy(numbers, x, count * sizeof(float));
    int32_t bits[kMostGroup];
    std::memcpy(bits, numbers, sizeof(bits));
    int32_t largest = 0;
    for (int i = 0; i < tile.group; ++i) largest = std::max(largest, bits[i] & 0x7fffffff);
    const uint32_t exponent = std::max(static_cast<uint32_t>(largest) >> 23, 15U);
    const uint32_t scale_bits = (exponent - 14) << 23;
    const uint32_t inverse_bits = (268 - std::min(exponent, kInfinity - 1)) << 23;
    float scale;
    float inverse;
    std::memcpy(&scale, &scale_bits, sizeof(scale));
    std::memcpy(&inverse, &inverse_bits, sizeof(inverse));
    const bool finite = exponent != kInfinity;
    tile.scales[g * tile.rows + row] = finite ? scale : std::numeric_limits<float>::quiet_NaN();
    int16_t* values = tile.values + (g * tile.rows + row) * tile.group;
    for (int i = 0; i < tile.group; ++i) numbers[i] = numbers[i] * inverse + kRound;
    std::memcpy(bits, numbers, sizeof(bits));
    for (int i = 0; i < tile.group; ++i) {
      values[i] = static_cast<int16_t>(std::min(bits[i] - 0x4b400000, 32767));
    }
  }
}

// What lies a page ahead, into the second cache: the hardware's own prefetching stops at the end of a page, and many rows
// keep the CPU too busy to run far enough ahead by itself.
[[gnu::always_inline]] inline void prefetch_ahead(const int8_t* values) {
  constexpr int kPage = 4096;
  constexpr int kReading = 0;
  constexpr int kSecondCache = 2;
  __builtin_prefetch(values + kPage, kReading, kSecondCache);
}

using Multiply = void (*)(const RowTile&, const WeightBlock&, float*);

// table[n - 1] for n rows; Version<n, group>::multiply are the functions.
template <template <int, int> class Version, int kGroup, size_t... kIndex>
void multiply_by_table(const RowTile& rows, const WeightBlock& weights, float* out, std::index_sequence<kIndex...>) {
  static constexpr Multiply table[] = {&Version<static_cast<int>(kIndex) + 1, kGroup>::multiply...};
  table[rows.rows - 1](rows, weights, out);
}

}  // namespace iberis
