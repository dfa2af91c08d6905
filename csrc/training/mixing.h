// SLC2's mixing in training, forward and backward: u = SiLU(SiLU(alpha) (x) a) x; z = causal convolution of u; y = b SiLU(z),
// with the RMS norm of y over its channels where it is asked for.
//
// * Each input is read once, and nothing between them and y is stored: the backward pass works it out again.
// * In bf16 only what is stored is rounded.
// * Time is cut into tiles. At a tile's border the K-1 neighbouring steps are worked out twice.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "decode/bf16.h"

namespace iberis {

constexpr int64_t kTileSteps = 64;

template <typename T>
struct Mixing {
  const T* x;                // [time, batch, heads * size]
  const T* alpha;            // [time, batch, heads]
  const T* a;                // [time, batch, size]
  const T* b;                // [time, batch, heads * size]
  const T* taps;             // [kernel, heads * size], the last one is the current token's
  const T* past;             // u of the kernel - 1 steps before, [kernel - 1, batch, heads * size]; null: there were none
  const int64_t* positions;  // each token's place in its document, [time, batch]; null: one document
  int64_t time;
  int64_t batch;
  int64_t heads;
  int64_t size;
  int64_t kernel;
  std::optional<float> norm_eps;  // of the RMS norm; without it there is none

  int64_t width() const { return heads * size; }
  int64_t tiles() const { return (time + kTileSteps - 1) / kTileSteps; }
  int64_t items() const { return tiles() * batch; }  // a tile of a sequence each

  // How many steps back the convolution looks at a step.
  int64_t reach(int64_t t, int64_t n) const {
    int64_t back = kernel - 1;
    if (!past && t < back) back = t;
    if (positions && positions[t * batch + n] < back) back = positions[t * batch + n];
    return back;
  }
};

template <typename T>
struct MixingGradient {
  const T* y;  // the given one, [time, batch, heads * size]
  T* x;        // those of Mixing's
  T* alpha;
  T* a;
  T* b;
  T* past;      // null where there was none
  float* taps;  // [items, kernel, heads * size], to be summed over the items
};

template <typename T>
using MixForward = void (*)(const Mixing<T>& of, int64_t item, T* y);
template <typename T>
using MixBackward = void (*)(const Mixing<T>& of, int64_t item, const MixingGradient<T>& gradient);

struct MixingKernel {
  const char* name;
  MixForward<float> forward_floats;
  MixForward<uint16_t> forward_bf16;
  MixBackward<float> backward_floats;
  MixBackward<uint16_t> backward_bf16;
};

extern const MixingKernel kPortableMixing;
extern const MixingKernel kAvx2Mixing;
extern const MixingKernel kAvx512Mixing;

// What this CPU can run, the best last.
const std::vector<const MixingKernel*>& mixing_kernels();

// In at most so many threads, which does not change a bit.
template <typename T>
void mix(const Mixing<T>& of, T* y, int threads, const MixingKernel& kernel);
template <typename T>
void mix_backward(const Mixing<T>& of, const MixingGradient<T>& gradient, int threads, const MixingKernel& kernel);

}  // namespace iberis
