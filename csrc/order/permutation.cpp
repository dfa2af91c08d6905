#include "order/permutation.h"

#include <stdexcept>
#include <string>

namespace iberis {

Permutation::Permutation(uint64_t n, uint64_t key) : n_(n) {
  if (n == 0 || n > kLargest) {
    throw std::invalid_argument("a permutation of " + std::to_string(n) + " indices: give 1 to 2^62.");
  }
  while ((uint64_t{1} << (2 * half_bits_)) < n) ++half_bits_;
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

uint64_t Permutation::inverse(uint64_t image) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = image >> half_bits_;
    uint64_t right = image & mask;
    for (auto key = keys_.rbegin(); key != keys_.rend(); ++key) {
      const uint64_t previous = right ^ round(left, *key);
      right = left;
      left = previous;
    }
    image = left << half_bits_ | right;
  } while (image >= n_);
  return image;
}

}  // namespace iberis
