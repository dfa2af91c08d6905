#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "order/best_fit.h"
#include "order/blend.h"
#include "order/megatron_order.h"
#include "order/permutation.h"
#include "order/samples.h"

namespace iberis {
namespace {

py::array_t<int64_t> permute_range(int64_t start, int64_t count, int64_t n, uint64_t key) {
  return array_of(without_gil([&] { return Permutation(n, key).images(start, count); }));
}

py::array_t<int64_t> sample_offsets(int64_t first_sample, int64_t count, int64_t num_tokens, int64_t sequence_length,
                                    uint64_t seed, bool shuffle) {
  return array_of(
      without_gil([&] { return SampleOrder(num_tokens, sequence_length, seed, shuffle).offsets(first_sample, count); }));
}

py::tuple locate(Blend& blend, int64_t first, int64_t count) {
  Blend::Places places = without_gil([&] { return blend.locate(first, count); });
  return py::make_tuple(array_of(std::move(places.files)), array_of(std::move(places.indices)));
}

py::tuple packed_rows(const IndexReader& index, int64_t row_tokens) {
  PackedRows packed = without_gil([&] { return best_fit(index, row_tokens); });
  return py::make_tuple(array_of(std::move(packed.starts)), array_of(std::move(packed.documents)), packed.cropped,
                        packed.padded);
}

template <typename Number>
py::array rows_of(const MegatronOrder& order) {
  py::array_t<Number> rows({order.samples() + 1, int64_t{2}});  // not filled with zeros: the threads fill it
  const Span<Number> span(rows.mutable_data(), static_cast<uint64_t>(rows.size()));
  without_gil([&] { order.write(span); });
  return rows;
}

py::array megatron_sample_index(const Int32s& lengths, const Int32s& order, int64_t sequence_length) {
  const Span<const int32_t> length_of = one_dimensional(lengths, "lengths");
  const Span<const int32_t> documents = one_dimensional(order, "order");
  const MegatronOrder samples = without_gil([&] { return MegatronOrder(length_of, documents, sequence_length); });
  return samples.fits_int32() ? rows_of<int32_t>(samples) : rows_of<int64_t>(samples);
}

}  // namespace

void bind_order(py::module_& module) {
  py::class_<Blend>(module, "Blend")
      .def(py::init<std::vector<uint64_t>>(), "weights"_a)
      .def("locate", &locate, "first"_a, "count"_a);
  module.def("best_fit", &packed_rows, "index"_a, "row_tokens"_a);
  module.def("megatron_sample_index", &megatron_sample_index, "lengths"_a, "order"_a, "sequence_length"_a);
  module.def("permute_range", &permute_range, "start"_a, "count"_a, "n"_a, "key"_a);
  module.def("sample_offsets", &sample_offsets, "first_sample"_a, "count"_a, "num_tokens"_a, "sequence_length"_a,
             "seed"_a, "shuffle"_a);
}

}  // namespace iberis
