// A memory-mapped .idx (see token_file/idx_format.h), treated as hostile: whatever the bytes are, no call reads outside
// the file or crashes; a fault is an InputError that names the file and says what to do.
//
// * Opening costs the same for any size: it checks the header against the file's size and the ends of the arrays.
// * verify() walks through everything. Without it a damaged middle is noticed where it is used, or not at all.
// * A file that another process cuts while it is mapped is beyond this (the system then ends the reader with SIGBUS).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "mapped_file.h"
#include "span.h"
#include "token_file/idx_format.h"

namespace iberis {

class IndexReader {
 public:
  // fix: what to do about a damaged file, for the user: "make it again with ...".
  IndexReader(const std::filesystem::path& path, std::string fix);

  int dtype_code() const { return dtype_code_; }
  int64_t sequences() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t documents() const { return static_cast<int64_t>(document_index_.size()) - 1; }
  // Tokens that the .bin must hold.
  int64_t tokens() const { return tokens_; }

  // The mapped arrays: lengths [sequences] in tokens, offsets [sequences] in bytes, document index [documents + 1].
  idx::Array<int32_t> lengths() const { return lengths_; }
  idx::Array<int64_t> offsets() const { return offsets_; }
  idx::Array<int64_t> document_index() const { return document_index_; }

  // (first token, number of tokens) of a sequence; std::out_of_range (IndexError) for one that is not there.
  std::pair<int64_t, int64_t> sequence(int64_t i) const;
  // The document of each token of the file, by binary search; std::invalid_argument for a token that is not in it.
  std::vector<int64_t> documents_of(Span<const int64_t> tokens) const;
  // Every length, offset and document border.
  void verify() const;

 private:
  void read_header();
  void check_ends();
  int64_t sequence_of(int64_t token) const;
  int64_t document_of_sequence(int64_t sequence) const;
  [[noreturn]] void fail(const std::string& fault) const;

  std::string path_;
  std::string fix_;
  MappedFile file_;
  int dtype_code_ = 0;
  int64_t token_bytes_ = 0;
  int64_t tokens_ = 0;
  idx::Array<int32_t> lengths_;
  idx::Array<int64_t> offsets_;
  idx::Array<int64_t> document_index_;
};

}  // namespace iberis
