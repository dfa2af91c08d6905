#include "decode/convolution_step.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "decode/pool.h"

#define IBERIS_TARGET

namespace iberis {
namespace {

#include "decode/eight.h"

constexpr int64_t kLeastNumbers = 1 << 12;  // worth a thread's while

// Vectors go by reference: how they are passed by value depends on the kind of CPU.

// Up to eight numbers, filled up with zeros.
template <typename T>
void some(const T* from, int64_t count, Eight& to) {
  if (count >= kEight) return load(from, to);
  to = Eight{};
  for (int64_t i = 0; i < count; ++i) to[i] = widened(from[i]);
}

template <typename T>
void keep(const Eight& numbers, int64_t count, T* to) {
  for (int64_t i = 0; i < std::min(count, kEight); ++i) narrow(numbers[i], to + i);
}

template <typename T>
void round_each(Eight& numbers) {
  if constexpr (!std::is_same_v<T, float>) {
    for (int64_t i = 0; i < kEight; ++i) numbers[i] = rounded<T>(numbers[i]);
  }
}

template <typename T>
void gate_by_itself(Eight& numbers) {
  silu(numbers);
  round_each<T>(numbers);
}

// Channels [first, first + count) of a token, the ones from `inside` on of a head; gate: SiLU(alpha) of it.
template <typename T>
void mix_some(const ConvolutionStep<T>& step, int64_t token, float gate, int64_t inside, int64_t first, int64_t count,
              T* out) {
  const int64_t width = step.heads * step.size;
  Eight now;  // the convolution's input
  Eight other;
  some(step.a[token] + inside, count, now);
  now *= gate;
  round_each<T>(now);
  gate_by_itself<T>(now);
  some(step.x[token] + first, count, other);
  now *= other;
  round_each<T>(now);

  const T* tap = step.taps + first;
  T* input = step.inputs + step.of[token] * width + first;
  Eight sum = {};
  Eight before;
  for (int64_t j = 0; j + 1 < step.kernel; ++j, tap += width, input += step.slots * width) {
    some(input, count, before);
    some(tap, count, other);
    sum += other * before;
    round_each<T>(sum);
    if (j > 0) keep(before, count, input - step.slots * width);
    if (j + 2 == step.kernel) keep(now, count, input);
  }
  some(tap, count, other);
  sum += other * now;
  round_each<T>(sum);

  gate_by_itself<T>(sum);
  some(step.b[token] + first, count, other);
  sum *= other;
  keep(sum, count, out + token * width + first);
}

}  // namespace

template <typename T>
void convolution_step(const ConvolutionStep<T>& step, T* out, int threads) {
  const int64_t least = std::max<int64_t>(1, kLeastNumbers / std::max<int64_t>(1, step.size));
  Pool::shared().run(step.tokens * step.heads, least, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t token = i / step.heads;
      const int64_t head = i % step.heads;
      Eight alpha;
      some(step.alpha[token] + head, 1, alpha);
      gate_by_itself<T>(alpha);
      for (int64_t d = 0; d < step.size; d += kEight) {
        mix_some(step, token, alpha[0], d, head * step.size + d, std::min(kEight, step.size - d), out);
      }
    }
  });
}

template void convolution_step(const ConvolutionStep<float>&, float*, int);
template void convolution_step(const ConvolutionStep<uint16_t>&, uint16_t*, int);

}  // namespace iberis
