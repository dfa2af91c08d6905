// A keyed permutation of [0, n), computed one index at a time: nothing is built or stored, for any n up to 2^62.
//
// The indices are padded to the smallest power of four 4^h >= n with h >= 4 and written as two halves of h bits. A
// balanced Feistel network of 8 rounds permutes [0, 4^h):
//
//     (left, right) <- (right, left XOR F_i(right)),    F_i(x) = top h bits of mix(x XOR key_i)
//
// mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014; Stafford's variant 13), in which every input bit flips
// every output bit with probability 1/2, and key_0 .. key_7 are the first outputs of SplitMix64 started at the key. An
// image outside [0, n) is sent through again until it falls inside ("cycle walking", Black and Rogaway 2002): this is a
// permutation of [0, n), and it takes fewer than 4 walks on average (256 / n below n = 64).
//
// Four rounds would do for large halves (Luby and Rackoff 1988). Eight rounds and h >= 4 make every order of a handful of
// samples equally likely too; with h = 2 the orders of 5 samples are not, whatever the number of rounds (chi-square 20
// standard deviations off). It is not a cipher. Only fixed-width unsigned arithmetic: the same on every machine, and it
// must stay so, because the order in which a run sees its data depends on it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace iberis {

// SplitMix64's finaliser, a bijection of 64-bit words.
constexpr uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

// SplitMix64's increment, 2^64 divided by the golden ratio.
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;

class Permutation {
 public:
  static constexpr int64_t kLargest = int64_t{1} << 62;

  // std::invalid_argument unless 1 <= n <= kLargest.
  Permutation(int64_t n, uint64_t key);

  // Image of an index below n.
  uint64_t operator()(uint64_t index) const;
  // Images of the indices [first, first + count); std::invalid_argument unless they lie in [0, n).
  std::vector<int64_t> images(int64_t first, int64_t count) const;

 private:
  uint64_t round(uint64_t half, uint64_t key) const { return mix(half ^ key) >> (64 - half_bits_); }

  uint64_t n_;
  unsigned half_bits_ = 4;
  std::array<uint64_t, 8> keys_;
};

}  // namespace iberis
