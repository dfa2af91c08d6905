// Writes a .idx (see token_file/idx_format.h) in constant memory, however many sequences there are.
//
// * The lengths go straight to their final place behind a gap for the header; finish() reads them back to compute the
//   offsets. Only the document index needs a second file, a nameless one, until then.
// * Until finish() has returned the file has no header and no reader takes it; a writer that is dropped or aborted
//   before removes it.
// * Safe to call from several threads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>

#include "token_file/output_file.h"

namespace iberis {

class IndexWriter {
 public:
  IndexWriter(const std::filesystem::path& path, int dtype_code);
  IndexWriter(const IndexWriter&) = delete;
  IndexWriter& operator=(const IndexWriter&) = delete;
  ~IndexWriter() { abort(); }

  // Each length is a document of one sequence.
  void add(const int64_t* lengths, uint64_t count);
  // All lengths together are one document (none: an empty document).
  void add_document(const int64_t* lengths, uint64_t count);
  // Completes the file and syncs it to the disk.
  void finish();
  // Removes the unfinished file; nothing after finish() or a second time.
  void abort() noexcept;

  int64_t sequences() const { return read(sequences_); }
  int64_t documents() const { return read(documents_); }
  int64_t tokens() const { return read(tokens_); }

 private:
  int64_t read(const uint64_t& counter) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int64_t>(counter);
  }
  void check(const int64_t* lengths, uint64_t count) const;
  void append_length(int64_t length);
  void end_document();
  void write_offsets();
  void copy_document_index();

  mutable std::mutex mutex_;
  std::filesystem::path path_;
  int dtype_code_;
  bool pending_ = true;  // the file at path_ is ours and unfinished
  uint64_t sequences_ = 0;
  uint64_t documents_ = 0;
  uint64_t tokens_ = 0;
  OutputFile document_index_;  // before file_: when it cannot be made, no file is left behind
  OutputFile file_;
};

}  // namespace iberis
