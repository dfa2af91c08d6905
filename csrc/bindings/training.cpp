#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "training/mixing.h"
#include "training/softcap.h"

namespace iberis {
namespace {

template <typename Kernel>
std::vector<std::string> names_of(const std::vector<const Kernel*>& kernels) {
  std::vector<std::string> names;
  for (const Kernel* kernel : kernels) names.emplace_back(kernel->name);
  return names;
}

// "" is the best one.
template <typename Kernel>
const Kernel& kernel_named(const std::vector<const Kernel*>& kernels, const std::string& name) {
  if (name.empty()) return *kernels.back();
  for (const Kernel* kernel : kernels) {
    if (kernel->name == name) return *kernel;
  }
  throw std::invalid_argument("this CPU has no kernel \"" + name + "\": take one that is listed for it.");
}

template <typename T>
void softcap(py::array_t<T, py::array::c_style>& logits, const Int64s& targets, float softcap, float range,
             int64_t padding, bool gradient, py::array_t<float, py::array::c_style>& totals,
             py::array_t<float, py::array::c_style>& at_target, int threads, const std::string& kernel) {
  if (logits.ndim() != 2 || targets.size() != logits.shape(0) || totals.size() != logits.shape(0) ||
      at_target.size() != logits.shape(0) || padding < 0 || padding > logits.shape(1)) {
    throw std::invalid_argument("logits must be [N, V], targets, totals and at_target [N], padding at most V.");
  }
  const SoftcapKernel& chosen = kernel_named(softcap_kernels(), kernel);
  const SoftcapRows<T> rows = {logits.mutable_data(), logits.shape(0), logits.shape(1), padding,
                               targets.data(),        softcap,         range,           gradient};
  float* sums = totals.mutable_data();
  float* found = at_target.mutable_data();
  without_gil([&] { softcap_pass(rows, sums, found, threads, chosen); });
}

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
template <typename T>
using Optional = std::optional<Array<T>>;

void require(bool right) {
  if (right) return;
  throw std::invalid_argument(
      "x, b and y must be [T, B, E], alpha [T, B, H], a [T, B, E/H], taps [K, E], past [K-1, B, E] and positions [T, B].");
}

template <typename T>
bool shaped(const Array<T>& array, std::vector<int64_t> shape) {
  return std::vector<int64_t>(array.shape(), array.shape() + array.ndim()) == shape;
}

// Gradients are as large as what they belong to, so both come by the same names.
template <typename T>
struct Mixed {
  const Array<T>& x;
  const Array<T>& alpha;
  const Array<T>& a;
  const Array<T>& b;
  const Array<T>& y;
  const Optional<T>& past;
};

template <typename T>
Mixing<T> mixing_of(const Mixed<T>& in, const Array<T>& taps, const std::optional<Int64s>& positions,
                    std::optional<float> norm_eps) {
  require(in.x.ndim() == 3 && in.alpha.ndim() == 3 && in.a.ndim() == 3 && taps.ndim() == 2 && taps.shape(0) > 0);
  const Mixing<T> of = {in.x.data(),
                        in.alpha.data(),
                        in.a.data(),
                        in.b.data(),
                        taps.data(),
                        in.past ? in.past->data() : nullptr,
                        positions ? positions->data() : nullptr,
                        in.x.shape(0),
                        in.x.shape(1),
                        in.alpha.shape(2),
                        in.a.shape(2),
                        taps.shape(0),
                        norm_eps};
  require(taps.shape(1) == of.width());
  require(!positions || (positions->ndim() == 2 && positions->shape(0) == of.time && positions->shape(1) == of.batch));
  return of;
}

template <typename T>
void require_shapes(const Mixed<T>& arrays, const Mixing<T>& of) {
  const std::vector<int64_t> whole = {of.time, of.batch, of.width()};
  require(shaped(arrays.x, whole) && shaped(arrays.b, whole) && shaped(arrays.y, whole));
  require(shaped(arrays.alpha, {of.time, of.batch, of.heads}) && shaped(arrays.a, {of.time, of.batch, of.size}));
  require(arrays.past.has_value() == (of.past != nullptr));
  require(!arrays.past || shaped(*arrays.past, {of.kernel - 1, of.batch, of.width()}));
}

template <typename T>
void forward(const Array<T>& x, const Array<T>& alpha, const Array<T>& a, const Array<T>& b, const Array<T>& taps,
             const Optional<T>& past, const std::optional<Int64s>& positions, std::optional<float> norm_eps, Array<T>& y,
             int threads, const std::string& kernel) {
  const Mixed<T> arrays = {x, alpha, a, b, y, past};
  const Mixing<T> of = mixing_of(arrays, taps, positions, norm_eps);
  require_shapes(arrays, of);
  const MixingKernel& chosen = kernel_named(mixing_kernels(), kernel);
  T* to = y.mutable_data();
  without_gil([&] { mix(of, to, threads, chosen); });
}

template <typename T>
void backward(const Array<T>& x, const Array<T>& alpha, const Array<T>& a, const Array<T>& b, const Array<T>& taps,
              const Optional<T>& past, const std::optional<Int64s>& positions, std::optional<float> norm_eps,
              const Array<T>& d_y, Array<T>& d_x, Array<T>& d_alpha, Array<T>& d_a, Array<T>& d_b, Optional<T>& d_past,
              Array<float>& d_taps, int threads, const std::string& kernel) {
  const Mixed<T> arrays = {x, alpha, a, b, d_y, past};
  const Mixing<T> of = mixing_of(arrays, taps, positions, norm_eps);
  require_shapes(arrays, of);
  require_shapes({d_x, d_alpha, d_a, d_b, d_y, d_past}, of);
  require(shaped(d_taps, {of.items(), of.kernel, of.width()}));
  const MixingKernel& chosen = kernel_named(mixing_kernels(), kernel);
  const MixingGradient<T> to = {d_y.data(),         d_x.mutable_data(),
                                d_alpha.mutable_data(), d_a.mutable_data(),
                                d_b.mutable_data(), d_past ? d_past->mutable_data() : nullptr,
                                d_taps.mutable_data()};
  without_gil([&] { mix_backward(of, to, threads, chosen); });
}

template <typename T>
void bind_mixing(py::module_& module) {
  module.def("mix", &forward<T>, py::arg("x").noconvert(), py::arg("alpha").noconvert(), py::arg("a").noconvert(),
             py::arg("b").noconvert(), py::arg("taps").noconvert(), py::arg("past").noconvert(), "positions"_a,
             "norm_eps"_a, py::arg("y").noconvert(), "threads"_a, "kernel"_a = "");
  module.def("mix_backward", &backward<T>, py::arg("x").noconvert(), py::arg("alpha").noconvert(),
             py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("taps").noconvert(),
             py::arg("past").noconvert(), "positions"_a, "norm_eps"_a, py::arg("d_y").noconvert(),
             py::arg("d_x").noconvert(), py::arg("d_alpha").noconvert(), py::arg("d_a").noconvert(),
             py::arg("d_b").noconvert(), py::arg("d_past").noconvert(), py::arg("d_taps").noconvert(), "threads"_a,
             "kernel"_a = "");
}

template <typename T>
void bind_softcap(py::module_& module) {
  module.def("softcap_pass", &softcap<T>, py::arg("logits").noconvert(), "targets"_a, "softcap"_a, "range"_a,
             "padding"_a, "gradient"_a, py::arg("totals").noconvert(), py::arg("at_target").noconvert(), "threads"_a,
             "kernel"_a = "");
}

}  // namespace

void bind_training(py::module_& module) {
  module.def("softcap_kernels", [] { return names_of(softcap_kernels()); });
  module.def("mixing_kernels", [] { return names_of(mixing_kernels()); });
  module.def("mixing_tile_steps", [] { return kTileSteps; });
  bind_softcap<float>(module);
  bind_softcap<uint16_t>(module);
  bind_mixing<float>(module);
  bind_mixing<uint16_t>(module);
}

}  // namespace iberis
