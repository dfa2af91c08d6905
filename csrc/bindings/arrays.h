// Between numpy's arrays and C++'s vectors and spans.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "span.h"
#include "token_file/idx_format.h"

namespace iberis {

namespace py = pybind11;
using namespace pybind11::literals;

// Without forcecast: integers of any width come in, floats are refused instead of being cut. Aligned: the arrays of
// an .idx file are not, behind its header of 34 bytes, and are copied.
constexpr int kAsCpp = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
using Int32s = py::array_t<int32_t, kAsCpp>;
using Int64s = py::array_t<int64_t, kAsCpp>;

// The elements of an array of one dimension; `name` is the argument's.
template <typename T>
Span<const T> one_dimensional(const py::array_t<T, kAsCpp>& array, const char* name) {
  if (array.ndim() != 1) {
    throw std::invalid_argument(std::string(name) + " must be a one-dimensional array of integers, not one of " +
                                std::to_string(array.ndim()) + " dimensions.");
  }
  return {array.data(), static_cast<uint64_t>(array.size())};
}

// What work() returns. Other threads of Python run meanwhile, so it must touch no Python object.
template <typename Work>
auto without_gil(const Work& work) {
  const py::gil_scoped_release release;
  return work();
}

// An array that takes over the vector's memory.
template <typename T>
py::array_t<T> array_of(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  const py::capsule owner(kept.get(), [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
  const std::vector<T>& owned = *kept.release();  // the capsule's from here on
  return py::array_t<T>(owned.size(), owned.data(), owner);
}

// A read-only array over a mapped file, which `owner` keeps open as long as the array lives.
template <typename T>
py::array view(const py::object& owner, const idx::Array<T>& array) {
  const auto size = static_cast<int64_t>(array.size());
  py::array result(py::dtype::of<T>(), {size}, {static_cast<int64_t>(sizeof(T))}, array.data(), owner);
  result.attr("setflags")("write"_a = false);
  return result;
}

}  // namespace iberis
