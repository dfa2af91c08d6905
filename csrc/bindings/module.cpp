// The Python module megatron_iberis._C (its types: megatron_iberis/_C.pyi).
//
// * InputError becomes megatron_iberis.errors.InputError, a failing system call OSError; std::invalid_argument is
//   ValueError and std::out_of_range IndexError (pybind11).
// * The GIL is released wherever a call can take long.

#include <pybind11/pybind11.h>

#include <cerrno>
#include <exception>
#include <filesystem>

#include "bindings/bindings.h"
#include "errors.h"

namespace py = pybind11;

namespace iberis {
namespace {

// A str, whatever bytes the name of a file holds.
py::object text(const char* bytes) {
  auto decoded = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(bytes));
  if (!decoded) throw py::error_already_set();
  return decoded;
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const InputError& error) {
    // Looked up where it is needed, so that the import of this module imports no other.
    const py::object kind = py::module_::import("megatron_iberis.errors").attr("InputError");
    PyErr_SetObject(kind.ptr(), text(error.what()).ptr());
  } catch (const std::filesystem::filesystem_error& error) {
    const py::object name = text(error.path1().c_str());
    errno = error.code().value();  // last, for anything before may change it
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name.ptr());
  }
}

}  // namespace
}  // namespace iberis

PYBIND11_MODULE(_C, module) {
  module.doc() = "Text to ids, token file indexes, the order of samples, and what decoding and training do on a CPU, in C++.";
  py::register_local_exception_translator(iberis::translate);
  iberis::bind_decode(module);
  iberis::bind_token_file(module);
  iberis::bind_order(module);
  iberis::bind_tokenizer(module);
  iberis::bind_training(module);
}
