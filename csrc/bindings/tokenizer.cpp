#include <pybind11/stl.h>

#include <array>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "tokenizer/bpe.h"
#include "tokenizer/unigram.h"

namespace iberis {
namespace {

py::array_t<int32_t> encode(const Encoder& encoder, const py::str& text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) throw py::error_already_set();  // UnicodeEncodeError
  return array_of(without_gil([&] {
    std::vector<int32_t> ids;
    ids.reserve(static_cast<size_t>(size) / 3 + 16);
    encoder.encode({bytes, static_cast<size_t>(size)}, ids);
    return ids;
  }));
}

template <typename Kind>
void bind_encoder(py::module_& module, const char* name) {
  const auto make = [](std::vector<std::string> pieces, std::vector<float> scores,
                       const std::array<int32_t, 256>& byte_ids) {
    return std::make_unique<Kind>(Vocabulary{std::move(pieces), std::move(scores), byte_ids});
  };
  py::class_<Kind, Encoder>(module, name).def(py::init(make), "pieces"_a, "scores"_a, "byte_ids"_a);
}

}  // namespace

void bind_tokenizer(py::module_& module) {
  py::class_<Encoder>(module, "Encoder").def("encode", &encode, "text"_a);
  bind_encoder<BpeEncoder>(module, "BpeEncoder");
  bind_encoder<UnigramEncoder>(module, "UnigramEncoder");
}

}  // namespace iberis
