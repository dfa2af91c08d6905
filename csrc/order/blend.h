// Which file every sample of a mixture comes from: exact proportions at every prefix, without walking there.
//
// * k files have integer weights p_i with the sum q; file i's share is w_i = p_i / q. After n samples c_i(n) of them
//   came from file i, and |c_i(n) - n w_i| < 1 for every n and i. That is: c_i(n) is n w_i rounded down or up.
// * So the j-th sample of file i has a window of places, [floor((j - 1) / w_i), ceil(j / w_i)), and an order is right if
//   every sample lies in its window (Tijdeman's chairman assignment problem, 1980). Taking the sample whose window
//   closes first finds such an order (earliest deadline first), but place n then hangs on all places before it.
// * Therefore the places are cut into blocks, and c(n) at a border n is computed on its own: x_i = frac(n w_i) is rounded
//   up for sum(x_i) files B. Both neighbouring blocks have a right order if
//       |B n U| <= ceil(x(U))    for all sets U of the files that wait longest for their next whole n w_i,
//       |B n V| >= floor(x(V))   for all sets V of the files whose last whole n w_i is longest ago.
//   Each family is a chain, x itself satisfies both, and two chains have an integral solution if they have any. The
//   second chain says: going through the files by age, the longest ago first, choose one whenever the sum of x passes a
//   whole number. Choosing then, of those passed, the one that waits shortest makes every |B n U| as small as can be.
//   (Why it is enough: a block needs no more places between its start n and t than there are if |B n U_t| <= R(t) for
//   U_t, the files with no whole multiple in (n, t], where R(t) = sum(frac(t w_i)) is whole and at least x(U_t). The
//   end of a block is the same, read backwards.)
// * A block has 1,024 places, more (a power of two) where a share is below 1/1,024: each file must have one in a block.
//
// A file whose share is below 2^-24 is refused. Only integer arithmetic: the same on every machine, and it must stay so.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace iberis {

class Blend {
 public:
  // Of each sample the file, and the number of samples of that file before it.
  struct Places {
    std::vector<int64_t> files;
    std::vector<int64_t> indices;
  };

  // InputError unless there are 1 to 65,535 positive weights, below 2^62 in sum, none below 2^-24 of it.
  explicit Blend(std::vector<uint64_t> weights);

  // The samples [first, first + count); std::invalid_argument unless they lie in [0, 2^62).
  Places locate(int64_t first, int64_t count);

 private:
  // Samples of each file among the first n, where n is a border between blocks: [files].
  std::vector<int64_t> counts_at_border(uint64_t n) const;
  void fill(uint64_t number);

  std::vector<uint64_t> weights_;
  uint64_t sum_ = 0;
  uint64_t block_ = 1024;

  // The block that was asked for last.
  std::mutex mutex_;
  uint64_t filled_ = UINT64_MAX;
  std::vector<int64_t> before_;     // samples of each file before the block
  std::vector<uint16_t> file_;      // of each place
  std::vector<uint32_t> in_block_;  // samples of that file before it in the block
};

}  // namespace iberis
