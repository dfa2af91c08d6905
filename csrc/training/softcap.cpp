#include "training/softcap.h"

#include <algorithm>
#include <type_traits>

#include "training/team.h"

namespace iberis {
namespace {

constexpr int64_t kPartLogits = 1 << 14;  // some ten microseconds: worth a thread's while

}  // namespace

const std::vector<const SoftcapKernel*>& softcap_kernels() {
  static const std::vector<const SoftcapKernel*> kernels = [] {
    std::vector<const SoftcapKernel*> found = {&kPortableSoftcap};
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2Softcap);
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      found.push_back(&kAvx512Softcap);
    }
#endif
    return found;
  }();
  return kernels;
}

template <typename T>
void softcap_pass(const SoftcapRows<T>& of, float* totals, float* at_target, int threads, const SoftcapKernel& kernel) {
  SoftcapPass<T> pass;
  if constexpr (std::is_same_v<T, float>) {
    pass = kernel.floats;
  } else {
    pass = kernel.bf16;
  }
  const int64_t part = std::max<int64_t>(1, kPartLogits / std::max<int64_t>(1, of.width));
  in_team(of.rows, part, threads, [&](int64_t begin, int64_t end) { pass(of, begin, end, totals, at_target); });
}

template void softcap_pass(const SoftcapRows<float>&, float*, float*, int, const SoftcapKernel&);
template void softcap_pass(const SoftcapRows<uint16_t>&, float*, float*, int, const SoftcapKernel&);

}  // namespace iberis
