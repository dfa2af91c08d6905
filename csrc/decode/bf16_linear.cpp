#include "decode/bf16_linear.h"

#include <algorithm>

#include "decode/pool.h"

namespace iberis {
namespace {

constexpr int kTile = 16;                 // rows for which a weight is read once
constexpr int64_t kLeastBytes = 1 << 15;  // a few microseconds of reading: worth a thread's while

// x in fp32, of each step the even ones and then the odd ones, filled up with zeros. Stays for this thread's next call.
const float* widened(const uint16_t* x, int64_t rows, int64_t inputs, int64_t row_floats) {
  thread_local std::vector<float> wide;
  wide.assign(static_cast<size_t>(rows * row_floats), 0.0F);
  float* to = wide.data();
  for (int64_t r = 0; r < rows; ++r, to += row_floats, x += inputs) {
    for (int64_t i = 0; i < inputs; ++i) {
      const int64_t inside = i % kStep;
      to[i - inside + inside % 2 * kLanes + inside / 2] = from_bf16(x[i]);
    }
  }
  return wide.data();
}

}  // namespace

const std::vector<const Bf16Kernel*>& bf16_kernels() {
  static const std::vector<const Bf16Kernel*> kernels = [] {
    std::vector<const Bf16Kernel*> found = {&kPortableBf16};
#ifdef __x86_64__
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq");
    if (avx2) found.push_back(&kAvx2Bf16);
    if (avx512) found.push_back(&kAvx512Bf16);
#endif
    return found;
  }();
  return kernels;
}

void bf16_linear(const uint16_t* weight, int64_t outputs, int64_t inputs, const uint16_t* x, int64_t rows, uint16_t* y,
                 int threads, const Bf16Kernel& kernel, bool squared) {
  const int64_t row_floats = Bf16Block{nullptr, nullptr, inputs, 0, 0}.row_floats();
  const float* wide = widened(x, rows, inputs, row_floats);
  const int64_t blocks = (outputs + kBf16Outputs - 1) / kBf16Outputs;
  const int64_t block_bytes = kBf16Outputs * inputs * static_cast<int64_t>(sizeof(uint16_t));
  const int64_t least = std::max<int64_t>(1, kLeastBytes / std::max<int64_t>(1, block_bytes));
  Pool::shared().run(blocks, least, threads, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kBf16Outputs; first < std::min(end * kBf16Outputs, outputs); first += kBf16Outputs) {
      const auto width = static_cast<int>(std::min<int64_t>(kBf16Outputs, outputs - first));
      for (int64_t row = 0; row < rows; row += kTile) {
        const auto count = static_cast<int>(std::min<int64_t>(kTile, rows - row));
        float out[kTile * kBf16Outputs];
        kernel.multiply({weight + first * inputs, wide + row * row_floats, inputs, width, count}, out);
        for (int r = 0; r < count; ++r) {
          for (int o = 0; o < width; ++o) {
            const float number = out[r * kBf16Outputs + o];
            y[(row + r) * outputs + first + o] = to_bf16(squared ? relu_squared<uint16_t>(number) : number);
          }
        }
      }
    }
  });
}

}  // namespace iberis
