#include "token_file/index_reader.h"

#include <cstring>
#include <stdexcept>

#include "errors.h"

namespace iberis {
namespace {

// The last i with array[i] <= value. Whatever the array holds, the answer lies in it.
uint64_t last_not_above(const idx::Array<int64_t>& array, int64_t value) {
  uint64_t low = 0;
  uint64_t count = array.size();
  while (count > 1) {
    const uint64_t half = count / 2;
    if (array[low + half] <= value) low += half;
    count -= half;
  }
  return low;
}

}  // namespace

IndexReader::IndexReader(const std::filesystem::path& path, std::string fix)
    : path_(path.string()), fix_(std::move(fix)), file_(path_) {
  read_header();
  check_ends();
}

void IndexReader::fail(const std::string& fault) const { throw InputError(path_ + " " + fault + ": " + fix_); }

void IndexReader::read_header() {
  const unsigned char* const data = file_.bytes().data();
  const uint64_t bytes = file_.bytes().size();
  if (bytes == 0) fail("is empty");
  if (bytes < idx::kHeaderBytes) {
    fail("is cut off: it holds " + std::to_string(bytes) + " bytes and the header alone has 34");
  }
  if (std::memcmp(data, idx::kMagic, sizeof(idx::kMagic)) != 0) {
    fail("is not the index of a token file (it does not start with MMIDIDX)");
  }
  const auto version = idx::load<uint64_t>(data + 9);
  if (version != idx::kVersion) fail("has version " + std::to_string(version) + " where 1 is known");
  dtype_code_ = data[17];
  token_bytes_ = idx::token_bytes(dtype_code_);
  if (token_bytes_ == 0) {
    fail("has dtype code " + std::to_string(dtype_code_) + " where 8 (uint16) and 4 (int32) are supported");
  }
  const auto sequences = idx::load<uint64_t>(data + 18);
  const auto index_length = idx::load<uint64_t>(data + 26);
  // Below 2^58 the promised size cannot overflow.
  constexpr uint64_t kMost = uint64_t{1} << 58;
  if (sequences > kMost || index_length > kMost || index_length == 0) {
    fail("is damaged: no file can hold " + std::to_string(sequences) + " sequences and a document index of " +
         std::to_string(index_length));
  }
  const uint64_t promised = idx::kHeaderBytes + 12 * sequences + 8 * index_length;
  if (bytes < promised) {
    fail("is cut off or damaged: " + std::to_string(promised - bytes) + " of " + std::to_string(promised) +
         " bytes are missing");
  }
  if (bytes > promised) {
    fail("holds " + std::to_string(bytes - promised) + " bytes more than its header promises (damaged, or multimodal)");
  }
  lengths_ = {data + idx::kHeaderBytes, sequences};
  offsets_ = {lengths_.end(), sequences};
  document_index_ = {offsets_.end(), index_length};
}

void IndexReader::check_ends() {
  if (document_index_[0] != 0 || document_index_[document_index_.size() - 1] != sequences()) {
    fail("is damaged: its documents do not cover its sequences");
  }
  if (lengths_.size() == 0) return;
  const int64_t length = lengths_[lengths_.size() - 1];
  const int64_t offset = offsets_[offsets_.size() - 1];
  constexpr int64_t kMost = int64_t{1} << 62;
  if (offsets_[0] != 0 || length < 0 || offset < 0 || offset > kMost || offset % token_bytes_ != 0) {
    fail("is damaged: its first or last sequence lies outside every file");
  }
  tokens_ = offset / token_bytes_ + length;
}

std::pair<int64_t, int64_t> IndexReader::sequence(int64_t i) const {
  if (i < 0 || i >= sequences()) {
    throw std::out_of_range("sequence " + std::to_string(i) + " is not one of the " + std::to_string(sequences()) +
                            " of the file");
  }
  const int64_t length = lengths_[static_cast<uint64_t>(i)];
  const int64_t offset = offsets_[static_cast<uint64_t>(i)];
  if (length < 0 || offset < 0 || offset % token_bytes_ != 0 || offset / token_bytes_ > tokens_ - length) {
    fail("is damaged: sequence " + std::to_string(i) + " lies outside the .bin");
  }
  return {offset / token_bytes_, length};
}

std::vector<int64_t> IndexReader::documents_of(Span<const int64_t> tokens) const {
  std::vector<int64_t> documents;
  documents.reserve(tokens.size());
  for (const int64_t token : tokens) documents.push_back(document_of_sequence(sequence_of(token)));
  return documents;
}

int64_t IndexReader::sequence_of(int64_t token) const {
  if (token < 0 || token >= tokens_) {
    throw std::invalid_argument("token " + std::to_string(token) + " is not one of the " + std::to_string(tokens_) +
                                " of the file.");
  }
  // Of several sequences with this offset all but the last are empty, so the last is the one with the token.
  const auto i = static_cast<int64_t>(last_not_above(offsets_, token * token_bytes_));
  const auto [first, length] = sequence(i);
  if (token < first || token >= first + length) {
    fail("is damaged: no sequence holds token " + std::to_string(token));
  }
  return i;
}

int64_t IndexReader::document_of_sequence(int64_t sequence) const {
  const uint64_t document = last_not_above(document_index_, sequence);
  if (document + 1 >= document_index_.size() || document_index_[document] > sequence ||
      document_index_[document + 1] <= sequence) {
    fail("is damaged: no document holds sequence " + std::to_string(sequence));
  }
  return static_cast<int64_t>(document);
}

void IndexReader::verify() const {
  uint64_t offset = 0;  // unsigned: a hostile file may drive it around
  for (uint64_t i = 0; i < lengths_.size(); ++i) {
    const int64_t length = lengths_[i];
    if (length < 0) fail("is damaged: sequence " + std::to_string(i) + " has " + std::to_string(length) + " tokens");
    if (static_cast<uint64_t>(offsets_[i]) != offset) {
      fail("is damaged: sequence " + std::to_string(i) + " does not start where the one before it ends");
    }
    offset += static_cast<uint64_t>(length * token_bytes_);
  }
  for (uint64_t d = 0; d + 1 < document_index_.size(); ++d) {
    if (document_index_[d] > document_index_[d + 1]) {
      fail("is damaged: document " + std::to_string(d) + " ends before it starts");
    }
  }
}

}  // namespace iberis
