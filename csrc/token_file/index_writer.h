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

#include "span.h"
#include "token_file/output_file.h"

namespace iberis {

class IndexWriter {
 public:
  // std::invalid_argument for a dtype that token files do not use.
  IndexWriter(const std::filesystem::path& path, int dtype_code);
  IndexWriter(const IndexWriter&) = delete;
  IndexWriter& operator=(const IndexWriter&) = delete;
  ~IndexWriter() { abort(); }

  // Each length is a document of one sequence. InputError for a length that a .idx cannot hold.
  void add(Span<const int64_t> lengths);
  // All lengths together are one document (none: an empty document).
  void add_document(Span<const int64_t> lengths);
  // Completes the file and syncs it to the disk.
  void finish();
  // Removes the unfinished file; nothing after finish() or a second time.
  void abort() noexcept;

 private:
  void check(Span<const int64_t> lengths) const;
  void append_length(int64_t length);
  void end_document();
  void write_offsets();
  void copy_document_index();

  std::mutex mutex_;
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
