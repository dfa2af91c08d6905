// The Python module megatron_iberis._C (its types: megatron_iberis/_C.pyi).
//
// * std::invalid_argument becomes ValueError, std::out_of_range IndexError (pybind11), a failing system call OSError.
// * The GIL is released wherever a call can take long.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "order/best_fit.h"
#include "order/blend.h"
#include "order/megatron_order.h"
#include "order/permutation.h"
#include "order/samples.h"
#include "token_file/idx_format.h"
#include "token_file/index_reader.h"
#include "token_file/index_writer.h"
#include "tokenizer/bpe.h"
#include "tokenizer/unigram.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace iberis {
namespace {

// Without forcecast: integers of any width come in, floats are refused instead of being cut.
using Int64s = py::array_t<int64_t, py::array::c_style>;

struct Span {
  const int64_t* data;
  uint64_t count;
};

Span one_dimensional(const Int64s& array, const char* name) {
  if (array.ndim() != 1) {
    throw std::invalid_argument(std::string(name) + " must be a one-dimensional array of integers, not one of " +
                                std::to_string(array.ndim()) + " dimensions.");
  }
  return {array.data(), static_cast<uint64_t>(array.size())};
}

// A read-only array over the mapped file, which lives as long as the array does.
template <typename T>
py::array view(const py::object& reader, const unsigned char* data, int64_t count) {
  py::array array(py::dtype::of<T>(), {count}, {static_cast<int64_t>(sizeof(T))}, data, reader);
  array.attr("setflags")("write"_a = false);
  return array;
}

py::array_t<int64_t> documents_of(const IndexReader& reader, const Int64s& tokens) {
  const Span wanted = one_dimensional(tokens, "tokens");
  py::array_t<int64_t> documents(tokens.size());
  int64_t* document = documents.mutable_data();
  const py::gil_scoped_release release;
  for (uint64_t i = 0; i < wanted.count; ++i) {
    document[i] = reader.document_of_sequence(reader.find(wanted.data[i]).first);
  }
  return documents;
}

// The permutation of [0, n), once [first, first + count) is known to lie in it.
Permutation checked_permutation(int64_t first, int64_t count, int64_t n, uint64_t key) {
  if (n < 1) throw std::invalid_argument("a permutation of " + std::to_string(n) + " indices: give 1 to 2^62.");
  if (first < 0 || count < 0 || count > n || first > n - count) {
    throw std::invalid_argument("indices from " + std::to_string(first) + ", " + std::to_string(count) +
                                " of them, do not lie in a permutation of " + std::to_string(n) + ".");
  }
  return {static_cast<uint64_t>(n), key};
}

int64_t permute(int64_t index, int64_t n, uint64_t key) {
  return static_cast<int64_t>(checked_permutation(index, 1, n, key)(static_cast<uint64_t>(index)));
}

int64_t permute_inverse(int64_t image, int64_t n, uint64_t key) {
  return static_cast<int64_t>(checked_permutation(image, 1, n, key).inverse(static_cast<uint64_t>(image)));
}

py::array_t<int64_t> permute_range(int64_t start, int64_t count, int64_t n, uint64_t key) {
  const Permutation permutation = checked_permutation(start, count, n, key);
  py::array_t<int64_t> images(count);
  int64_t* image = images.mutable_data();
  const py::gil_scoped_release release;
  for (int64_t i = 0; i < count; ++i) {
    image[i] = static_cast<int64_t>(permutation(static_cast<uint64_t>(start + i)));
  }
  return images;
}

py::array_t<int64_t> sample_offsets(int64_t first_sample, int64_t count, int64_t num_tokens, int64_t sequence_length,
                                    uint64_t seed, bool shuffle) {
  const SampleOrder order(num_tokens, sequence_length, seed, shuffle);
  py::array_t<int64_t> offsets(count < 0 ? 0 : count);  // a negative count is refused below
  int64_t* out = offsets.mutable_data();
  const py::gil_scoped_release release;
  order.offsets(first_sample, count, out);
  return offsets;
}

py::tuple locate(Blend& blend, int64_t first, int64_t count) {
  py::array_t<int64_t> files(count < 0 ? 0 : count);  // a negative count is refused below
  py::array_t<int64_t> indices(count < 0 ? 0 : count);
  int64_t* file = files.mutable_data();
  int64_t* index = indices.mutable_data();
  {
    const py::gil_scoped_release release;
    blend.locate(first, count, file, index);
  }
  return py::make_tuple(files, indices);
}

// An array that takes over the vector's memory.
template <typename T>
py::array_t<T> array_of(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  const py::capsule owner(kept.get(), [](void* vector) { delete static_cast<std::vector<T>*>(vector); });
  const std::vector<T>& owned = *kept.release();  // the capsule's from here on
  return py::array_t<T>(owned.size(), owned.data(), owner);
}

py::tuple packed_rows(const IndexReader& reader, int64_t row_tokens) {
  PackedRows packed;
  {
    const py::gil_scoped_release release;
    packed = best_fit(reader, row_tokens);
  }
  return py::make_tuple(array_of(std::move(packed.starts)), array_of(std::move(packed.documents)), packed.cropped,
                        packed.padded);
}

template <typename Row>
py::array rows_of(const MegatronOrder& samples) {
  py::array_t<Row> rows({samples.samples() + 1, int64_t{2}});
  Row* out = rows.mutable_data();
  {
    const py::gil_scoped_release release;  // the return converts the array, which counts references
    samples.write(out);
  }
  return rows;
}

py::array megatron_sample_index(const py::array_t<int32_t, py::array::c_style>& lengths,
                                const py::array_t<int32_t, py::array::c_style>& order, int64_t sequence_length) {
  if (lengths.ndim() != 1 || order.ndim() != 1) throw std::invalid_argument("lengths and order must be one-dimensional.");
  const int32_t* length = lengths.data();
  const int32_t* document = order.data();
  const auto sequences = static_cast<uint64_t>(lengths.size());
  const auto documents = static_cast<uint64_t>(order.size());
  std::optional<MegatronOrder> samples;
  {
    const py::gil_scoped_release release;
    samples.emplace(length, sequences, document, documents, sequence_length);
  }
  const bool fits = documents <= static_cast<uint64_t>(std::numeric_limits<int32_t>::max());
  return fits ? rows_of<int32_t>(*samples) : rows_of<int64_t>(*samples);
}

void bind_index(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<IndexWriter>(module, "IndexWriter")
      .def(py::init<const std::filesystem::path&, int>(), "path"_a, "dtype_code"_a)
      .def(
          "add",
          [](IndexWriter& writer, const Int64s& lengths) {
            const Span span = one_dimensional(lengths, "lengths");
            const py::gil_scoped_release release;
            writer.add(span.data, span.count);
          },
          "lengths"_a)
      .def(
          "add_document",
          [](IndexWriter& writer, const Int64s& lengths) {
            const Span span = one_dimensional(lengths, "lengths");
            const py::gil_scoped_release release;
            writer.add_document(span.data, span.count);
          },
          "lengths"_a)
      .def("finish", &IndexWriter::finish, unlocked)
      .def("abort", &IndexWriter::abort, unlocked)
      .def_property_readonly("num_sequences", &IndexWriter::sequences)
      .def_property_readonly("num_documents", &IndexWriter::documents)
      .def_property_readonly("num_tokens", &IndexWriter::tokens);

  py::class_<IndexReader>(module, "IndexReader")
      .def(py::init<const std::filesystem::path&>(), "path"_a)
      .def_property_readonly("dtype_code", &IndexReader::dtype_code)
      .def_property_readonly("num_sequences", &IndexReader::sequences)
      .def_property_readonly("num_documents", &IndexReader::documents)
      .def_property_readonly("num_tokens", &IndexReader::tokens)
      .def_property_readonly("lengths",
                             [](const py::object& self) {
                               const auto& reader = self.cast<const IndexReader&>();
                               return view<int32_t>(self, reader.lengths(), reader.sequences());
                             })
      .def_property_readonly("offsets",
                             [](const py::object& self) {
                               const auto& reader = self.cast<const IndexReader&>();
                               return view<int64_t>(self, reader.offsets(), reader.sequences());
                             })
      .def_property_readonly("document_index",
                             [](const py::object& self) {
                               const auto& reader = self.cast<const IndexReader&>();
                               return view<int64_t>(self, reader.document_index(), reader.documents() + 1);
                             })
      .def("sequence", &IndexReader::sequence, "i"_a)
      .def("find", &IndexReader::find, "token"_a)
      .def("documents_of", &documents_of, "tokens"_a)
      .def("verify", &IndexReader::verify, unlocked);
}

py::array_t<int32_t> encode(const Encoder& encoder, const py::str& text) {
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (bytes == nullptr) throw py::error_already_set();  // UnicodeEncodeError
  std::vector<int32_t> ids;
  {
    const py::gil_scoped_release release;
    ids.reserve(static_cast<size_t>(size) / 3 + 16);
    encoder.encode({bytes, static_cast<size_t>(size)}, ids);
  }
  return array_of(std::move(ids));
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

PYBIND11_MODULE(_C, module) {
  module.doc() = "Text to ids, token file indexes and the order of samples, in C++.";
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const std::filesystem::filesystem_error& error) {
      const py::str name(error.path1().string());
      errno = error.code().value();  // last, for anything before may change it
      PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name.ptr());
    }
  });
  bind_index(module);
  py::class_<Encoder>(module, "Encoder").def("encode", &encode, "text"_a);
  bind_encoder<BpeEncoder>(module, "BpeEncoder");
  bind_encoder<UnigramEncoder>(module, "UnigramEncoder");
  py::class_<Blend>(module, "Blend")
      .def(py::init<std::vector<uint64_t>>(), "weights"_a)
      .def("locate", &locate, "first"_a, "count"_a);
  module.def("best_fit", &packed_rows, "index"_a, "row_tokens"_a);
  module.def("megatron_sample_index", &megatron_sample_index, "lengths"_a, "order"_a, "sequence_length"_a);
  module.def("permute", &permute, "index"_a, "n"_a, "key"_a);
  module.def("permute_inverse", &permute_inverse, "image"_a, "n"_a, "key"_a);
  module.def("permute_range", &permute_range, "start"_a, "count"_a, "n"_a, "key"_a);
  module.def("sample_offsets", &sample_offsets, "first_sample"_a, "count"_a, "num_tokens"_a, "sequence_length"_a,
             "seed"_a, "shuffle"_a);
}

}  // namespace iberis
