#include "decode/int8_linear.h"

#include <algorithm>
#include <cstring>

#include "decode/bf16.h"
#include "decode/pool.h"

namespace iberis {
namespace {

constexpr int64_t kLeastBytes = 1 << 15;  // a few microseconds of reading: worth a thread's while

// All rows, tile after tile. The memory stays for the next call of this thread.
std::vector<RowTile> quantized(const float* x, int64_t rows, const Int8Matrix& weight, const Int8Kernel& kernel) {
  thread_local std::vector<int16_t> values;
  thread_local std::vector<float> scales;
  values.resize(static_cast<size_t>(rows * weight.groups() * weight.group));
  scales.resize(static_cast<size_t>(rows * weight.groups()));
  std::vector<RowTile> tiles;
  for (int64_t first = 0; first < rows; first += kTile) {
    const auto count = static_cast<int>(std::min<int64_t>(kTile, rows - first));
    const int64_t before = first * weight.groups();
    int16_t* to = values.data() + before * weight.group;
    tiles.push_back({to, scales.data() + before, count, weight.group, weight.groups()});
    for (int r = 0; r < count; ++r) kernel.quantize(x + (first + r) * weight.inputs, weight.inputs, tiles.back(), r);
  }
  return tiles;
}

}  // namespace

const std::vector<const Int8Kernel*>& int8_kernels() {
  static const std::vector<const Int8Kernel*> kernels = [] {
    std::vector<const Int8Kernel*> found = {&kPortableInt8};
#ifdef __x86_64__
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    if (avx2) found.push_back(&kAvx2Int8);
    if (avx512) found.push_back(&kAvx512Int8);
#endif
    return found;
  }();
  return kernels;
}

void int8_linear(const Int8Matrix& weight, const float* x, int64_t rows, float* y, int threads,
                 const Int8Kernel& kernel, bool squared) {
  const std::vector<RowTile> tiles = quantized(x, rows, weight, kernel);
  const int64_t block_values = weight.groups() * weight.group * kBlock;
  const int64_t block_scales = weight.groups() * kBlock;
  const int64_t least = std::max<int64_t>(1, kLeastBytes / std::max<int64_t>(1, block_values));
  Pool::shared().run(weight.blocks(), least, threads, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const WeightBlock weights = {weight.values + block * block_values, weight.scales + block * block_scales};
      const auto width = static_cast<size_t>(std::min<int64_t>(kBlock, weight.outputs - block * kBlock));
      float* to = y + block * kBlock;
      for (const RowTile& tile : tiles) {
        float out[kTile * kBlock];
        kernel.multiply(tile, weights, out);
        if (squared) std::transform(out, out + tile.rows * kBlock, out, relu_squared<float>);
        for (int r = 0; r < tile.rows; ++r, to += weight.outputs) {
          std::memcpy(to, out + r * kBlock, width * sizeof(float));
        }
      }
    }
  });
}

}  // namespace iberis
