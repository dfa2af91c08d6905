#include "order/megatron_order.h"

#include <stdexcept>
#include <string>

#include "order/parallel.h"

namespace iberis {

MegatronOrder::MegatronOrder(Span<const int32_t> lengths, Span<const int32_t> order, int64_t sequence_length)
    : length_(sequence_length),
      parts_(parts_of(order.size(), 1 << 16)),
      documents_(order.size()),
      ordered_(new int32_t[order.size()]),  // not filled with zeros: the threads fill it
      starts_(parts_ + 1, 0) {
  if (sequence_length < 1) {
    throw std::invalid_argument("a sequence of " + std::to_string(sequence_length) + " tokens: give 1 or more.");
  }
  for_each_part(parts_, [&](uint64_t part) { look_up(part, lengths, order); });
  for (uint64_t part = 0; part < parts_; ++part) {
    if (starts_[part + 1] < 0) {
      throw std::invalid_argument("the order names a document that is not one of the " + std::to_string(lengths.size()) +
                                  ", or one of negative length.");
    }
    starts_[part + 1] += starts_[part];
  }
  samples_ = (starts_[parts_] - 1) / length_;
  if (starts_[parts_] < 1 || samples_ < 1) {
    throw std::invalid_argument("the documents hold " + std::to_string(starts_[parts_]) +
                                " tokens, too few for one sequence of " + std::to_string(sequence_length) +
                                " and the token after it.");
  }
}

void MegatronOrder::look_up(uint64_t part, Span<const int32_t> lengths, Span<const int32_t> order) {
  constexpr uint64_t kAhead = 32;  // documents whose length is asked for before it is needed
  const uint64_t end = part_begin(part + 1);
  int64_t sum = 0;
  bool sound = true;
  for (uint64_t d = part_begin(part); d < end; ++d) {
    if (d + kAhead < end) __builtin_prefetch(lengths.data() + static_cast<uint32_t>(order[d + kAhead]));
    const auto document = static_cast<uint32_t>(order[d]);  // a negative number is too large
    const int32_t length = document < lengths.size() ? lengths[document] : -1;
    sound &= length >= 0;
    ordered_[d] = length;
    sum += length;
  }
  starts_[part + 1] = sound ? sum : -1;
}

template <typename Number>
void MegatronOrder::write_part(uint64_t part, Span<Number> rows) const {
  int64_t start = starts_[part];                     // of the document in the stream
  int64_t sample = (start + length_ - 1) / length_;  // the first that begins in this part
  int64_t next = sample * length_;                   // its token
  const int64_t last = samples_ * length_;
  for (uint64_t d = part_begin(part); d < part_begin(part + 1) && next <= last; ++d) {
    const int64_t end = start + ordered_[d];
    for (; next < end && next <= last; next += length_) {
      const auto row = static_cast<uint64_t>(2 * sample);
      rows[row] = static_cast<Number>(d);
      rows[row + 1] = static_cast<Number>(next - start);
      ++sample;
    }
    start = end;
  }
}

template <typename Number>
void MegatronOrder::write(Span<Number> rows) const {
  for_each_part(parts_, [&](uint64_t part) { write_part(part, rows); });
  rows[0] = rows[1] = 0;  // also when the first documents are empty
}

template void MegatronOrder::write(Span<int32_t> rows) const;
template void MegatronOrder::write(Span<int64_t> rows) const;

}  // namespace iberis
