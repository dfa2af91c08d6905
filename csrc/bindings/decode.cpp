#include <pybind11/stl.h>

#include <string>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "decode/int8_linear.h"

namespace iberis {
namespace {

using Values = py::array_t<int8_t, py::array::c_style>;
using Scales = py::array_t<uint16_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Int8Kernel* kernel : int8_kernels()) names.emplace_back(kernel->name);
  return names;
}

const Int8Kernel& kernel_named(const std::string& name) {
  for (const Int8Kernel* kernel : int8_kernels()) {
    if (kernel->name == name) return *kernel;
  }
  throw std::invalid_argument("this CPU has no int8 kernel \"" + name + "\": take one of int8_kernels().");
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

  void multiply(const Floats& x, Floats& y, int threads, const std::string& kernel) const {
    if (x.ndim() != 2 || y.ndim() != 2 || x.shape(0) != y.shape(0) || x.shape(1) != matrix_.inputs ||
        y.shape(1) != matrix_.outputs) {
      throw std::invalid_argument("x must be [N, " + std::to_string(matrix_.inputs) + "] and y [N, " +
                                  std::to_string(matrix_.outputs) + "].");
    }
    const Int8Kernel& chosen = kernel.empty() ? *int8_kernels().back() : kernel_named(kernel);
    const float* in = x.data();
    float* out = y.mutable_data();
    const int64_t rows = x.shape(0);
    without_gil([&] { int8_linear(matrix_, in, rows, out, threads, chosen); });
  }

 private:
  Values values_;
  Scales scales_;
  Int8Matrix matrix_;
};

}  // namespace

void bind_decode(py::module_& module) {
  py::class_<BoundMatrix>(module, "Int8Matrix")
      .def(py::init<Values, Scales, int64_t, int64_t, int>(), py::arg("values").noconvert(),
           py::arg("scales").noconvert(), "outputs"_a, "inputs"_a, "group"_a)
      .def("multiply", &BoundMatrix::multiply, py::arg("x").noconvert(), py::arg("y").noconvert(), "threads"_a,
           "kernel"_a = "");
  module.def("int8_kernels", &kernel_names);
}

}  // namespace iberis
