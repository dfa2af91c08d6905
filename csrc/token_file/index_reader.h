// A memory-mapped .idx (see token_file/idx_format.h), treated as hostile: whatever the bytes are, no call reads outside the file
// or crashes; a fault is a std::invalid_argument (Python's ValueError) with the file's name and what to do.
//
// * Opening costs the same for any size: it checks the header against the file's size and the ends of the arrays.
// * verify() walks through everything. Without it a damaged middle is noticed where it is used, or not at all.
// * A file that another process cuts while it is mapped is beyond this (the system then ends the reader with SIGBUS).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "mapped_file.h"

namespace iberis {

class IndexReader {
 public:
  explicit IndexReader(const std::filesystem::path& path);

  int dtype_code() const { return dtype_code_; }
  int64_t sequences() const { return static_cast<int64_t>(sequences_); }
  int64_t documents() const { return static_cast<int64_t>(documents_); }
  // Tokens that the .bin must hold.
  int64_t tokens() const { return tokens_; }

  // The mapped arrays, unaligned: lengths int32 [S], offsets int64 [S] in bytes, document index int64 [documents + 1].
  const unsigned char* lengths() const { return lengths_; }
  const unsigned char* offsets() const { return offsets_; }
  const unsigned char* document_index() const { return document_index_; }

  // (first token, number of tokens) of a sequence; std::out_of_range (IndexError) for one that is not there.
  std::pair<int64_t, int64_t> sequence(int64_t i) const;
  // (sequence, position in it) of a token of the file, by binary search over the offsets.
  std::pair<int64_t, int64_t> find(int64_t token) const;
  // The document of a sequence, by binary search over the document index.
  int64_t document_of_sequence(int64_t sequence) const;
  // Every length, offset and document border.
  void verify() const;

 private:
  void read_header();
  void check_ends();
  [[noreturn]] void fail(const std::string& fault) const;

  std::string path_;
  MappedFile file_;
  const unsigned char* data_;
  uint64_t bytes_;
  int dtype_code_ = 0;
  int64_t token_bytes_ = 0;
  uint64_t sequences_ = 0;
  uint64_t documents_ = 0;
  int64_t tokens_ = 0;
  const unsigned char* lengths_ = nullptr;
  const unsigned char* offsets_ = nullptr;
  const unsigned char* document_index_ = nullptr;
};

}  // namespace iberis
