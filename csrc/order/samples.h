// Where every training sample of a token file lies, without an index of samples.
//
// * The N tokens of a file are a ring: after the last comes the first again. A sample is T + 1 tokens from an offset on,
//   the first T the inputs and the last T the targets.
// * An epoch has N / T samples (rounded down). Sample j of epoch e starts at
//
//       (shift_e + permute_e(j) * T) mod N
//
//   so its targets are the T tokens after the start, and the targets of an epoch never overlap: every token is
//   predicted once, except N mod T tokens that are not predicted in this epoch. They are other tokens, and the borders
//   between samples are other borders, in the next epoch, because the shift differs.
// * shift_e = hash(seed, e, 0) mod N and permute_e is the Permutation (order/permutation.h) of the epoch's samples with
//   the key hash(seed, e, 1), where hash(s, e, k) = mix(mix(mix(s + G) + e + G) + k + G), G = kGolden.
// * Without shuffling (validation) the shift is 0 and the samples come in the order of the file, every epoch the same.
// * Samples are numbered through all epochs: number s is sample s mod (N / T) of epoch s / (N / T).
//
// So the whole position of a run in its data is one number, and any sample is found in constant time.
#pragma once

#include <cstdint>
#include <vector>

namespace iberis {

class SampleOrder {
 public:
  // std::invalid_argument unless 1 <= sequence_length < tokens <= 2^62.
  SampleOrder(int64_t tokens, int64_t sequence_length, uint64_t seed, bool shuffle);

  // First token of the samples [first, first + count); std::invalid_argument unless they lie in [0, 2^63).
  std::vector<int64_t> offsets(int64_t first, int64_t count) const;

 private:
  uint64_t tokens_;
  uint64_t length_;
  uint64_t seed_;
  bool shuffle_;
  uint64_t per_epoch_;
};

}  // namespace iberis
