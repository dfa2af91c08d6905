#include "order/permutation.h"

#include <stdexcept>
#include <string>

namespace iberis {

Permutation::Permutation(int64_t n, uint64_t key) : n_(static_cast<uint64_t>(n)) {
  if (n < 1 || n > kLargest) {
    throw std::invalid_argument("a permutation of " + std::to_string(n) + " indices: give 1 to 2^62.");
  }
  while ((uint64_t{1} << (2 * half_bits_)) < n_) ++half_bits_;
  for (auto& round_key : keys_) round_key = mix(key += kGolden);
}

uint64_t Permutation::operator()(uint64_t index) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = index >> half_bits_;
    uint64_t right = index & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ round(right, key);
      left = right;
      right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= n_);
  return index;
}

std::vector<int64_t> Permutation::images(int64_t first, int64_t count) const {
  const auto n = static_cast<int64_t>(n_);
  if (first < 0 || count < 0 || count > n || first > n - count) {
    throw std::invalid_argument("indices from " + std::to_string(first) + ", " + std::to_string(count) +
                                " of them, do not lie in a permutation of " + std::to_string(n) + ".");
  }
  std::vector<int64_t> images;
  images.reserve(static_cast<size_t>(count));
  for (int64_t i = first; i < first + count; ++i) {
    images.push_back(static_cast<int64_t>((*this)(static_cast<uint64_t>(i))));
  }
  return images;
}

}  // namespace iberis
