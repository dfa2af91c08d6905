#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "token_file/index_reader.h"
#include "token_file/index_writer.h"

namespace iberis {
namespace {

// A method that adds lengths to an index.
template <void (IndexWriter::*Add)(Span<const int64_t>)>
void add(IndexWriter& writer, const Int64s& lengths) {
  const Span<const int64_t> span = one_dimensional(lengths, "lengths");
  const py::gil_scoped_release release;
  (writer.*Add)(span);
}

// A property that is an array of the mapped file.
template <typename T, idx::Array<T> (IndexReader::*Array)() const>
py::array mapped(const py::object& self) {
  return view(self, (self.cast<const IndexReader&>().*Array)());
}

py::array_t<int64_t> documents_of(const IndexReader& reader, const Int64s& tokens) {
  const Span<const int64_t> span = one_dimensional(tokens, "tokens");
  return array_of(without_gil([&] { return reader.documents_of(span); }));
}

}  // namespace

void bind_token_file(py::module_& module) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<IndexWriter>(module, "IndexWriter")
      .def(py::init<const std::filesystem::path&, int>(), "path"_a, "dtype_code"_a)
      .def("add", &add<&IndexWriter::add>, "lengths"_a)
      .def("add_document", &add<&IndexWriter::add_document>, "lengths"_a)
      .def("finish", &IndexWriter::finish, unlocked)
      .def("abort", &IndexWriter::abort, unlocked);

  py::class_<IndexReader>(module, "IndexReader")
      .def(py::init<const std::filesystem::path&, std::string>(), "path"_a, "fix"_a)
      .def_property_readonly("dtype_code", &IndexReader::dtype_code)
      .def_property_readonly("num_sequences", &IndexReader::sequences)
      .def_property_readonly("num_documents", &IndexReader::documents)
      .def_property_readonly("num_tokens", &IndexReader::tokens)
      .def_property_readonly("lengths", &mapped<int32_t, &IndexReader::lengths>)
      .def_property_readonly("document_index", &mapped<int64_t, &IndexReader::document_index>)
      .def("sequence", &IndexReader::sequence, "i"_a)
      .def("documents_of", &documents_of, "tokens"_a)
      .def("verify", &IndexReader::verify, unlocked);
}

}  // namespace iberis
