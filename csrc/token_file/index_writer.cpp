#include "token_file/index_writer.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "errors.h"
#include "token_file/idx_format.h"

namespace iberis {
namespace {

constexpr uint64_t kChunk = 1 << 16;  // elements held in memory while copying

int checked_dtype(int dtype_code) {
  if (idx::token_bytes(dtype_code) == 0) {
    throw std::invalid_argument("dtype code " + std::to_string(dtype_code) +
                                " is not one of token files: use 8 (uint16) or 4 (int32).");
  }
  return dtype_code;
}

}  // namespace

IndexWriter::IndexWriter(const std::filesystem::path& path, int dtype_code)
    : path_(path),
      dtype_code_(checked_dtype(dtype_code)),
      document_index_(OutputFile::spool_beside(path)),
      file_(OutputFile::create(path)) {
  const std::vector<unsigned char> no_header_yet(idx::kHeaderBytes, 0);
  file_.append(no_header_yet);
  document_index_.append<int64_t>(0);
}

void IndexWriter::check(Span<const int64_t> lengths) const {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const uint64_t room = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 4 - tokens_;
  uint64_t sum = 0;
  for (const int64_t length : lengths) {
    if (length < 0 || length > kMost) {
      throw InputError("a sequence of " + std::to_string(length) +
                       " tokens does not fit a token file: cut documents into sequences of 0 to 2,147,483,647 tokens.");
    }
    sum += static_cast<uint64_t>(length);
    if (sum > room) throw InputError("more than 2^61 tokens do not fit one token file: write several.");
  }
}

void IndexWriter::append_length(int64_t length) {
  file_.append(static_cast<int32_t>(length));
  tokens_ += static_cast<uint64_t>(length);
  ++sequences_;
}

void IndexWriter::end_document() {
  document_index_.append(static_cast<int64_t>(sequences_));
  ++documents_;
}

void IndexWriter::add(Span<const int64_t> lengths) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(lengths);
  for (const int64_t length : lengths) {
    append_length(length);
    end_document();
  }
}

void IndexWriter::add_document(Span<const int64_t> lengths) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(lengths);
  for (const int64_t length : lengths) append_length(length);
  end_document();
}

void IndexWriter::write_offsets() {
  const int64_t token_bytes = idx::token_bytes(dtype_code_);
  std::vector<int32_t> lengths;
  int64_t offset = 0;
  for (uint64_t first = 0; first < sequences_; first += kChunk) {
    lengths.resize(std::min(kChunk, sequences_ - first));
    file_.read(idx::kHeaderBytes + first * sizeof(int32_t), lengths);
    for (const int32_t length : lengths) {
      file_.append(offset);
      offset += length * token_bytes;
    }
  }
}

void IndexWriter::copy_document_index() {
  document_index_.flush();
  std::vector<int64_t> ends;
  for (uint64_t first = 0; first <= documents_; first += kChunk) {
    ends.resize(std::min(kChunk, documents_ + 1 - first));
    document_index_.read(first * sizeof(int64_t), ends);
    file_.append(ends);
  }
}

void IndexWriter::finish() {
  const std::lock_guard<std::mutex> lock(mutex_);
  file_.flush();
  write_offsets();
  copy_document_index();
  file_.flush();
  const auto header = idx::Header{dtype_code_, sequences_, documents_ + 1}.packed();
  file_.overwrite(0, {header.data(), header.size()});
  file_.sync();
  file_.close();
  document_index_.close();
  pending_ = false;
}

void IndexWriter::abort() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  file_.close();
  document_index_.close();
  if (!pending_) return;
  pending_ = false;
  std::error_code ignored;  // it is being thrown away: nothing to do when it has gone already
  std::filesystem::remove(path_, ignored);
}

}  // namespace iberis
