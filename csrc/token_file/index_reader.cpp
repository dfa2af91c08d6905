#include "token_file/index_reader.h"

#include <cstring>
#include <stdexcept>

#include "token_file/idx_format.h"

namespace iberis {
namespace {

// The last i in [0, count) with array[i] <= value. Whatever the array holds, the answer lies in [0, count).
uint64_t last_not_above(const unsigned char* array, uint64_t count, int64_t value) {
  uint64_t low = 0;
  while (count > 1) {
    const uint64_t half = count / 2;
    if (idx::load<int64_t>(array, low + half) <= value) low += half;
    count -= half;
  }
  return low;
}

}  // namespace

IndexReader::IndexReader(const std::filesystem::path& path)
    : path_(path.string()), file_(path_), data_(file_.data()), bytes_(file_.bytes()) {
  read_header();
  check_ends();
}

void IndexReader::fail(const std::string& fault) const {
  throw std::invalid_argument(path_ + " " + fault + ": make it again with data_tools/preprocess.py, or copy it again.");
}

void IndexReader::read_header() {
  if (bytes_ == 0) fail("is empty");
  if (bytes_ < idx::kHeaderBytes) {
    fail("is cut off: it holds " + std::to_string(bytes_) + " bytes and the header alone has 34");
  }
  if (std::memcmp(data_, idx::kMagic, sizeof(idx::kMagic)) != 0) {
    fail("is not the index of a token file (it does not start with MMIDIDX)");
  }
  const auto version = idx::load<uint64_t>(data_ + 9, 0);
  if (version != idx::kVersion) fail("has version " + std::to_string(version) + " where 1 is known");
  dtype_code_ = data_[17];
  token_bytes_ = idx::token_bytes(dtype_code_);
  if (token_bytes_ == 0) {
    fail("has dtype code " + std::to_string(dtype_code_) + " where 8 (uint16) and 4 (int32) are supported");
  }
  sequences_ = idx::load<uint64_t>(data_ + 18, 0);
  const auto index_length = idx::load<uint64_t>(data_ + 26, 0);
  // Below 2^58 the promised size cannot overflow.
  constexpr uint64_t kMost = uint64_t{1} << 58;
  if (sequences_ > kMost || index_length > kMost || index_length == 0) {
    fail("is damaged: no file can hold " + std::to_string(sequences_) + " sequences and a document index of " +
         std::to_string(index_length));
  }
  const uint64_t promised = idx::kHeaderBytes + 12 * sequences_ + 8 * index_length;
  if (bytes_ < promised) {
    fail("is cut off or damaged: " + std::to_string(promised - bytes_) + " of " + std::to_string(promised) +
         " bytes are missing");
  }
  if (bytes_ > promised) {
    fail("holds " + std::to_string(bytes_ - promised) + " bytes more than its header promises (damaged, or multimodal)");
  }
  documents_ = index_length - 1;
  lengths_ = data_ + idx::kHeaderBytes;
  offsets_ = lengths_ + 4 * sequences_;
  document_index_ = offsets_ + 8 * sequences_;
}

void IndexReader::check_ends() {
  if (idx::load<int64_t>(document_index_, 0) != 0 ||
      static_cast<uint64_t>(idx::load<int64_t>(document_index_, documents_)) != sequences_) {
    fail("is damaged: its documents do not cover its sequences");
  }
  if (sequences_ == 0) return;
  const int64_t length = idx::load<int32_t>(lengths_, sequences_ - 1);
  const int64_t offset = idx::load<int64_t>(offsets_, sequences_ - 1);
  constexpr int64_t kMost = int64_t{1} << 62;
  if (idx::load<int64_t>(offsets_, 0) != 0 || length < 0 || offset < 0 || offset > kMost || offset % token_bytes_ != 0) {
    fail("is damaged: its first or last sequence lies outside every file");
  }
  tokens_ = offset / token_bytes_ + length;
}

std::pair<int64_t, int64_t> IndexReader::sequence(int64_t i) const {
  if (i < 0 || i >= sequences()) {
    throw std::out_of_range("sequence " + std::to_string(i) + " is not one of the " + std::to_string(sequences()) +
                            " of " + path_);
  }
  const int64_t length = idx::load<int32_t>(lengths_, static_cast<uint64_t>(i));
  const int64_t offset = idx::load<int64_t>(offsets_, static_cast<uint64_t>(i));
  if (length < 0 || offset < 0 || offset % token_bytes_ != 0 || offset / token_bytes_ > tokens_ - length) {
    fail("is damaged: sequence " + std::to_string(i) + " lies outside the .bin");
  }
  return {offset / token_bytes_, length};
}

std::pair<int64_t, int64_t> IndexReader::find(int64_t token) const {
  if (token < 0 || token >= tokens_) {
    throw std::invalid_argument("token " + std::to_string(token) + " is not in " + path_ + ": it holds " +
                                std::to_string(tokens_) + " tokens.");
  }
  // Of several sequences with this offset all but the last are empty, so the last is the one with the token.
  const auto i = static_cast<int64_t>(last_not_above(offsets_, sequences_, token * token_bytes_));
  const auto [first, length] = sequence(i);
  if (token < first || token >= first + length) {
    fail("is damaged: no sequence holds token " + std::to_string(token));
  }
  return {i, token - first};
}

int64_t IndexReader::document_of_sequence(int64_t sequence) const {
  const auto document = last_not_above(document_index_, documents_ + 1, sequence);
  if (document >= documents_ || idx::load<int64_t>(document_index_, document) > sequence ||
      idx::load<int64_t>(document_index_, document + 1) <= sequence) {
    fail("is damaged: no document holds sequence " + std::to_string(sequence));
  }
  return static_cast<int64_t>(document);
}

void IndexReader::verify() const {
  uint64_t offset = 0;  // unsigned: a hostile file may drive it around
  for (uint64_t i = 0; i < sequences_; ++i) {
    const int64_t length = idx::load<int32_t>(lengths_, i);
    if (length < 0) fail("is damaged: sequence " + std::to_string(i) + " has " + std::to_string(length) + " tokens");
    if (idx::load<uint64_t>(offsets_, i) != offset) {
      fail("is damaged: sequence " + std::to_string(i) + " does not start where the one before it ends");
    }
    offset += static_cast<uint64_t>(length * token_bytes_);
  }
  for (uint64_t d = 0; d < documents_; ++d) {
    if (idx::load<int64_t>(document_index_, d) > idx::load<int64_t>(document_index_, d + 1)) {
      fail("is damaged: document " + std::to_string(d) + " ends before it starts");
    }
  }
}

}  // namespace iberis
