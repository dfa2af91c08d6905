#include <pybind11/stl.h>

#include <algorithm>
#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "decode/attention.h"
#include "decode/bf16_linear.h"
#include "decode/convolution_step.h"
#include "decode/int8_linear.h"
#include "decode/rms_norm.h"

namespace iberis {
namespace {

using Values = py::array_t<int8_t, py::array::c_style>;
using Scales = py::array_t<uint16_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

using Bf16s = py::array_t<uint16_t, py::array::c_style>;

template <typename Kernel>
std::vector<std::string> names_of(const std::vector<const Kernel*>& kernels) {
  std::vector<std::string> names;
  for (const Kernel* kernel : kernels) names.emplace_back(kernel->name);
  return names;
}

// "" is the best one. `kind`: as in int8_kernels().
template <typename Kernel>
const Kernel& kernel_named(const std::vector<const Kernel*>& kernels, const std::string& name, const std::string& kind) {
  if (name.empty()) return *kernels.back();
  for (const Kernel* kernel : kernels) {
    if (kernel->name == name) return *kernel;
  }
  throw std::invalid_argument("this CPU has no " + kind + " kernel \"" + name + "\": take one of " + kind +
                              "_kernels().");
}

// Keeps the arrays alive, whose memory it reads.
class BoundMatrix {
 public:
  BoundMatrix(Values values, Scales scales, int64_t outputs, int64_t inputs, int group)
      : values_(std::move(values)), scales_(std::move(scales)) {
    if ((group != 32 && group != 64) || outputs < 0 || inputs < 0) {
      throw std::invalid_argument("groups of 32 or 64, and no negative size, please.");
    }
    matrix_ = {values_.data(), scales_.data(), outputs, inputs, group};
    const int64_t groups = matrix_.blocks() * matrix_.groups();
    if (values_.size() != groups * group * kBlock || scales_.size() != groups * kBlock) {
      throw std::invalid_argument("the packed weights are not those of a matrix of this shape.");
    }
  }

  void multiply(const Floats& x, Floats& y, int threads, const std::string& kernel, bool squared) const {
    if (x.ndim() != 2 || y.ndim() != 2 || x.shape(0) != y.shape(0) || x.shape(1) != matrix_.inputs ||
        y.shape(1) != matrix_.outputs) {
      throw std::invalid_argument("x must be [N, " + std::to_string(matrix_.inputs) + "] and y [N, " +
                                  std::to_string(matrix_.outputs) + "].");
    }
    const Int8Kernel& chosen = kernel_named(int8_kernels(), kernel, "int8");
    const float* in = x.data();
    float* out = y.mutable_data();
    const int64_t rows = x.shape(0);
    without_gil([&] { int8_linear(matrix_, in, rows, out, threads, chosen, squared); });
  }

 private:
  Values values_;
  Scales scales_;
  Int8Matrix matrix_;
};

void multiply_bf16(const Bf16s& weight, const Bf16s& x, Bf16s& y, int threads, const std::string& kernel,
                   bool squared) {
  if (weight.ndim() != 2 || x.ndim() != 2 || y.ndim() != 2 || x.shape(0) != y.shape(0) ||
      x.shape(1) != weight.shape(1) || y.shape(1) != weight.shape(0)) {
    throw std::invalid_argument("weight must be [O, I], x [N, I] and y [N, O].");
  }
  const Bf16Kernel& chosen = kernel_named(bf16_kernels(), kernel, "bf16");
  const uint16_t* weights = weight.data();
  const uint16_t* in = x.data();
  uint16_t* out = y.mutable_data();
  const int64_t outputs = weight.shape(0);
  const int64_t inputs = weight.shape(1);
  const int64_t rows = x.shape(0);
  without_gil([&] { bf16_linear(weights, outputs, inputs, in, rows, out, threads, chosen, squared); });
}

template <typename T>
void attend(const py::array_t<T, py::array::c_style>& q, const py::array_t<T, py::array::c_style>& keys,
            const py::array_t<T, py::array::c_style>& values, const Int64s& starts, const Int64s& lengths,
            py::array_t<T, py::array::c_style>& out, int threads, bool fast) {
  const bool shaped = q.ndim() == 3 && keys.ndim() == 3 && values.ndim() == 3 && out.ndim() == 3 &&
                      std::equal(q.shape(), q.shape() + 3, out.shape()) &&
                      std::equal(keys.shape(), keys.shape() + 3, values.shape()) && q.shape(2) == keys.shape(2) &&
                      keys.shape(1) > 0 && q.shape(1) % keys.shape(1) == 0 && starts.size() == q.shape(0) &&
                      lengths.size() == q.shape(0);
  if (!shaped) {
    throw std::invalid_argument("q and out must be [B, H, D], keys and values [R, KV, D], KV a divisor of H, "
                                "starts and lengths [B].");
  }
  const SingleQueries<T> of = {q.data(),   keys.data(), values.data(), starts.data(), lengths.data(),
                               q.shape(0), q.shape(1),  keys.shape(1), q.shape(2)};
  for (int64_t r = 0; r < of.requests; ++r) {
    if (of.starts[r] < 0 || of.lengths[r] < 1 || of.lengths[r] > keys.shape(0) - of.starts[r]) {
      throw std::invalid_argument("a request's rows must be 1 at least, and lie inside keys and values.");
    }
  }
  T* to = out.mutable_data();
  without_gil([&] { single_query_attention(of, to, threads, fast); });
}

template <typename T>
void bind_attention(py::module_& module) {
  module.def("single_query_attention", &attend<T>, py::arg("q").noconvert(), py::arg("keys").noconvert(),
             py::arg("values").noconvert(), "starts"_a, "lengths"_a, py::arg("out").noconvert(), "threads"_a,
             "fast"_a = true);
}

// A matrix whose rows are whole, one after the other or further apart.
template <typename T>
Rows<const T> rows_of(const py::array_t<T>& array, int64_t rows, int64_t size) {
  constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
  if (array.ndim() != 2 || array.shape(0) != rows || array.shape(1) != size ||
      (array.size() > 0 && size > 1 && array.strides(1) != kBytes) || array.strides(0) % kBytes != 0) {
    throw std::invalid_argument("an array must be [" + std::to_string(rows) + ", " + std::to_string(size) +
                                "], each row's numbers side by side.");
  }
  return {array.data(), array.strides(0) / kBytes};
}

template <typename T>
void norm(const py::array_t<T>& x, py::array_t<T, py::array::c_style>& out, float eps, int threads) {
  const Rows<const T> rows = rows_of(x, out.shape(0), out.shape(1));
  T* to = out.mutable_data();
  const int64_t count = out.shape(0);
  const int64_t size = out.shape(1);
  without_gil([&] { rms_norm(rows, count, size, eps, to, threads); });
}

template <typename T>
void convolve(const py::array_t<T>& x, const py::array_t<T>& alpha, const py::array_t<T>& a, const py::array_t<T>& b,
              const py::array_t<T, py::array::c_style>& taps, py::array_t<T, py::array::c_style>& inputs,
              const Int64s& slots, py::array_t<T, py::array::c_style>& out, int threads) {
  if (alpha.ndim() != 2 || a.ndim() != 2 || taps.ndim() != 2 || inputs.ndim() != 3 || taps.shape(0) < 1 ||
      taps.shape(0) != inputs.shape(0) + 1 || taps.shape(1) != inputs.shape(2) ||
      alpha.shape(1) * a.shape(1) != taps.shape(1)) {
    throw std::invalid_argument("alpha must be [N, H], a [N, E/H], taps [K, E] and inputs [K-1, slots, E].");
  }
  const int64_t tokens = slots.size();
  const int64_t width = taps.shape(1);
  rows_of<T>(out, tokens, width);
  for (int64_t i = 0; i < tokens; ++i) {
    if (slots.data()[i] < 0 || slots.data()[i] >= inputs.shape(1)) throw std::invalid_argument("there is no such slot.");
  }
  const ConvolutionStep<T> step = {rows_of(x, tokens, width),
                                   rows_of(alpha, tokens, alpha.shape(1)),
                                   rows_of(a, tokens, a.shape(1)),
                                   rows_of(b, tokens, width),
                                   taps.data(),
                                   inputs.mutable_data(),
                                   slots.data(),
                                   tokens,
                                   inputs.shape(1),
                                   alpha.shape(1),
                                   a.shape(1),
                                   taps.shape(0)};
  T* to = out.mutable_data();
  without_gil([&] { convolution_step(step, to, threads); });
}

template <typename T>
void bind_rows(py::module_& module) {
  module.def("rms_norm", &norm<T>, py::arg("x").noconvert(), py::arg("out").noconvert(), "eps"_a, "threads"_a);
  module.def("convolution_step", &convolve<T>, py::arg("x").noconvert(), py::arg("alpha").noconvert(),
             py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("taps").noconvert(),
             py::arg("inputs").noconvert(), "slots"_a, py::arg("out").noconvert(), "threads"_a);
}

}  // namespace

void bind_decode(py::module_& module) {
  py::class_<BoundMatrix>(module, "Int8Matrix")
      .def(py::init<Values, Scales, int64_t, int64_t, int>(), py::arg("values").noconvert(),
           py::arg("scales").noconvert(), "outputs"_a, "inputs"_a, "group"_a)
      .def("multiply", &BoundMatrix::multiply, py::arg("x").noconvert(), py::arg("y").noconvert(), "threads"_a,
           "kernel"_a = "", "relu_squared"_a = false);
  module.def("int8_kernels", [] { return names_of(int8_kernels()); });
  bind_attention<float>(module);
  bind_attention<uint16_t>(module);
  module.def("bf16_kernels", [] { return names_of(bf16_kernels()); });
  module.def("bf16_linear", &multiply_bf16, py::arg("weight").noconvert(), py::arg("x").noconvert(),
             py::arg("y").noconvert(), "threads"_a, "kernel"_a = "", "relu_squared"_a = false);
  bind_rows<float>(module);
  bind_rows<uint16_t>(module);
}

}  // namespace iberis
