#include "order/samples.h"

#include <limits>
#include <stdexcept>
#include <string>

#include "errors.h"
#include "order/permutation.h"

namespace iberis {
namespace {

constexpr uint64_t hash(uint64_t seed, uint64_t epoch, uint64_t purpose) {
  return mix(mix(mix(seed + kGolden) + epoch + kGolden) + purpose + kGolden);
}

}  // namespace

SampleOrder::SampleOrder(int64_t tokens, int64_t sequence_length, uint64_t seed, bool shuffle)
    : tokens_(static_cast<uint64_t>(tokens)),
      length_(static_cast<uint64_t>(sequence_length)),
      seed_(seed),
      shuffle_(shuffle) {
  if (sequence_length < 1) {
    throw std::invalid_argument("a sequence of " + std::to_string(sequence_length) + " tokens: give 1 or more.");
  }
  if (tokens <= sequence_length) {
    throw std::invalid_argument("the token file holds " + std::to_string(tokens) +
                                " tokens, too few for one sequence of " + std::to_string(sequence_length) +
                                " and the token after it.");
  }
  if (tokens > Permutation::kLargest) throw InputError("more than 2^62 tokens: use several files.");
  per_epoch_ = tokens_ / length_;
}

std::vector<int64_t> SampleOrder::offsets(int64_t first, int64_t count) const {
  if (first < 0 || count < 0 || count > std::numeric_limits<int64_t>::max() - first) {
    throw std::invalid_argument("samples " + std::to_string(first) + " and " + std::to_string(count) +
                                " from there: give numbers from 0 to 2^63 - 1.");
  }
  std::vector<int64_t> offsets;
  offsets.reserve(static_cast<size_t>(count));
  auto sample = static_cast<uint64_t>(first);
  const uint64_t end = sample + static_cast<uint64_t>(count);
  while (sample < end) {
    const uint64_t epoch = sample / per_epoch_;
    const uint64_t start = epoch * per_epoch_;
    const uint64_t stop = end - start < per_epoch_ ? end : start + per_epoch_;
    if (shuffle_) {
      const uint64_t shift = hash(seed_, epoch, 0) % tokens_;
      const Permutation permute(static_cast<int64_t>(per_epoch_), hash(seed_, epoch, 1));
      // Both terms are below 2^62, so the sum does not overflow.
      for (; sample < stop; ++sample) {
        offsets.push_back(static_cast<int64_t>((shift + permute(sample - start) * length_) % tokens_));
      }
    } else {
      for (; sample < stop; ++sample) offsets.push_back(static_cast<int64_t>((sample - start) * length_));
    }
  }
  return offsets;
}

}  // namespace iberis
