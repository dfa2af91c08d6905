#include "training/mixing.h"

#include <type_traits>

#include "training/team.h"

namespace iberis {

const std::vector<const MixingKernel*>& mixing_kernels() {
  static const std::vector<const MixingKernel*> kernels = [] {
    std::vector<const MixingKernel*> found = {&kPortableMixing};
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2Mixing);
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      found.push_back(&kAvx512Mixing);
    }
#endif
    return found;
  }();
  return kernels;
}

template <typename T>
void mix(const Mixing<T>& of, T* y, int threads, const MixingKernel& kernel) {
  MixForward<T> forward;
  if constexpr (std::is_same_v<T, float>) {
    forward = kernel.forward_floats;
  } else {
    forward = kernel.forward_bf16;
  }
  in_team(of.items(), 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) forward(of, item, y);
  });
}

template <typename T>
void mix_backward(const Mixing<T>& of, const MixingGradient<T>& gradient, int threads, const MixingKernel& kernel) {
  MixBackward<T> backward;
  if constexpr (std::is_same_v<T, float>) {
    backward = kernel.backward_floats;
  } else {
    backward = kernel.backward_bf16;
  }
  in_team(of.items(), 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) backward(of, item, gradient);
  });
}

template void mix(const Mixing<float>&, float*, int, const MixingKernel&);
template void mix(const Mixing<uint16_t>&, uint16_t*, int, const MixingKernel&);
template void mix_backward(const Mixing<float>&, const MixingGradient<float>&, int, const MixingKernel&);
template void mix_backward(const Mixing<uint16_t>&, const MixingGradient<uint16_t>&, int, const MixingKernel&);

}  // namespace iberis
