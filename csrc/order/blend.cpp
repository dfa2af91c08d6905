#include "order/blend.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <stdexcept>
#include <string>
#include <utility>

#include "errors.h"

namespace iberis {
namespace {

using Wide = unsigned __int128;
// (place, file); the smallest first, the lower file where places are equal.
using Earliest =
    std::priority_queue<std::pair<uint64_t, uint32_t>, std::vector<std::pair<uint64_t, uint32_t>>, std::greater<>>;

constexpr uint64_t kMostPlaces = uint64_t{1} << 62;
constexpr uint64_t kLargestBlock = uint64_t{1} << 24;

}  // namespace

Blend::Blend(std::vector<uint64_t> weights) : weights_(std::move(weights)) {
  if (weights_.empty() || weights_.size() > std::numeric_limits<uint16_t>::max()) {
    throw InputError("a mixture of " + std::to_string(weights_.size()) + " files: give 1 to 65,535.");
  }
  for (const uint64_t weight : weights_) {
    if (weight == 0 || weight >= kMostPlaces - sum_) {
      throw InputError("weights must be positive and below 2^62 together: give them fewer digits.");
    }
    sum_ += weight;
  }
  const auto rarest = std::min_element(weights_.begin(), weights_.end());
  while (block_ < kLargestBlock && Wide{block_} * *rarest < sum_) block_ *= 2;
  if (Wide{block_} * *rarest < sum_) {
    throw InputError("file " + std::to_string(rarest - weights_.begin() + 1) +
                     " of the mixture gives less than one sample in 16,777,216: leave it out, raise its "
                     "weight, or put it into one token file with another.");
  }
  file_.resize(block_);
  in_block_.resize(block_);
}

std::vector<int64_t> Blend::counts_at_border(uint64_t n) const {
  const auto files = static_cast<uint32_t>(weights_.size());
  std::vector<int64_t> counts(files);
  std::vector<uint64_t> rest(files);  // frac(n w_i) in q-ths
  std::vector<uint32_t> by_age;
  for (uint32_t i = 0; i < files; ++i) {
    const Wide product = Wide{n} * weights_[i];
    counts[i] = static_cast<int64_t>(product / sum_);
    rest[i] = static_cast<uint64_t>(product % sum_);
    if (rest[i] != 0) by_age.push_back(i);
  }
  std::sort(by_age.begin(), by_age.end(), [&](uint32_t a, uint32_t b) {
    const Wide left = Wide{rest[a]} * weights_[b];
    const Wide right = Wide{rest[b]} * weights_[a];
    return left != right ? left > right : a < b;
  });
  const auto waits_longer = [&](uint32_t a, uint32_t b) {
    const Wide left = Wide{sum_ - rest[a]} * weights_[b];
    const Wide right = Wide{sum_ - rest[b]} * weights_[a];
    return left != right ? left > right : a > b;
  };
  std::priority_queue<uint32_t, std::vector<uint32_t>, decltype(waits_longer)> passed(waits_longer);
  uint64_t total = 0;
  for (const uint32_t i : by_age) {
    passed.push(i);
    total += rest[i];
    if (total >= sum_) {
      total -= sum_;
      ++counts[passed.top()];
      passed.pop();
    }
  }
  return counts;
}

void Blend::fill(uint64_t number) {
  const uint64_t start = number * block_;
  const uint64_t end = start + block_;
  filled_ = UINT64_MAX;
  before_ = counts_at_border(start);
  const std::vector<int64_t> after = counts_at_border(end);
  std::vector<uint32_t> taken(weights_.size(), 0);
  Earliest closed;  // next samples whose window has not opened, by when it does
  Earliest open;    // next samples whose window is open, by when it closes
  const auto open_at = [&](uint32_t i) {
    const Wide done = static_cast<uint64_t>(before_[i]) + taken[i];
    return static_cast<uint64_t>(done * sum_ / weights_[i]);
  };
  const auto close_at = [&](uint32_t i) {
    const Wide done = static_cast<uint64_t>(before_[i]) + taken[i] + 1;
    return std::min(end, static_cast<uint64_t>((done * sum_ + weights_[i] - 1) / weights_[i]));
  };
  const auto announce = [&](uint32_t i) {
    if (before_[i] + int64_t{taken[i]} < after[i]) closed.emplace(open_at(i), i);
  };
  for (uint32_t i = 0; i < weights_.size(); ++i) announce(i);
  for (uint64_t place = start; place < end; ++place) {
    for (; !closed.empty() && closed.top().first <= place; closed.pop()) {
      open.emplace(close_at(closed.top().second), closed.top().second);
    }
    if (open.empty() || open.top().first <= place) throw std::logic_error("blend: no order within the windows");
    const uint32_t i = open.top().second;
    open.pop();
    file_[place - start] = static_cast<uint16_t>(i);
    in_block_[place - start] = taken[i]++;
    announce(i);
  }
  filled_ = number;
}

Blend::Places Blend::locate(int64_t first, int64_t count) {
  if (first < 0 || count < 0 || static_cast<uint64_t>(first) >= kMostPlaces ||
      static_cast<uint64_t>(count) > kMostPlaces - static_cast<uint64_t>(first)) {
    throw std::invalid_argument("samples " + std::to_string(first) + " and " + std::to_string(count) +
                                " from there: give numbers from 0 to 2^62.");
  }
  Places places;
  places.files.reserve(static_cast<size_t>(count));
  places.indices.reserve(static_cast<size_t>(count));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto place = static_cast<uint64_t>(first); count > 0; ++place, --count) {
    if (place / block_ != filled_) fill(place / block_);
    const uint64_t here = place % block_;
    places.files.push_back(file_[here]);
    places.indices.push_back(before_[file_[here]] + in_block_[here]);
  }
  return places;
}

}  // namespace iberis
