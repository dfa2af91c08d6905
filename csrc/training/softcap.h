// Raw logits of the head -> what loss and gradient are made of, in one pass and in place.
//
// With s = sigmoid(-2 logit / softcap) the capped logit is softcap - 2 softcap s, and exp(-range s), range = 2 softcap, is
// a likelihood that neither overflows nor vanishes: no maximum is needed. The gradient of the negative log likelihood by
// the raw logit is 4 s (1 - s) (likelihood / total - [it is the target]): but for the target's, a logit's is known before
// the row's total is, up to the factor 4 / total of the row.
#pragma once

#include <cstdint>
#include <vector>

namespace iberis {

template <typename T>
struct SoftcapRows {
  T* logits;  // [rows, width], fp32 or bf16
  int64_t rows;
  int64_t width;
  int64_t padding;         // that many at a row's end are no tokens: likelihood 0
  const int64_t* targets;  // [rows], a place in the row, or one outside of it where there is none
  float softcap;
  float range;  // 2 softcap, over a temperature
  bool gradient;
};

// Of rows [begin, end): the sums of the likelihoods go to totals, s at the targets to at_target (0 where there is none),
// and with `gradient` likelihood s (1 - s) takes each logit's place. Every row's numbers depend on it alone.
template <typename T>
using SoftcapPass = void (*)(const SoftcapRows<T>& of, int64_t begin, int64_t end, float* totals, float* at_target);

struct SoftcapKernel {
  const char* name;
  SoftcapPass<float> floats;
  SoftcapPass<uint16_t> bf16;
};

extern const SoftcapKernel kPortableSoftcap;
extern const SoftcapKernel kAvx2Softcap;
extern const SoftcapKernel kAvx512Softcap;

// What this CPU can run, the best last.
const std::vector<const SoftcapKernel*>& softcap_kernels();

// All rows, in at most so many threads. totals, at_target: [rows].
template <typename T>
void softcap_pass(const SoftcapRows<T>& of, float* totals, float* at_target, int threads, const SoftcapKernel& kernel);

}  // namespace iberis
