// Packs whole documents into rows of equal size: best fit, the longest document first.
//
// * Documents are taken by falling length, equal ones in the order of the file. Each goes into the row whose room it
//   leaves smallest, the one used last of several; into a new row where it fits into none. (Best-fit decreasing: never
//   more than 11/9 of the rows needed, for texts hardly more than needed, because short documents fill what is left.)
// * A document longer than a row is cut to the row's size, and its rest is not used. Empty documents are left out.
// * The same rows on every machine. Time grows with documents x log(row size) / 64, memory is 16 bytes a document.
#pragma once

#include <cstdint>
#include <vector>

#include "token_file/index_reader.h"

namespace iberis {

struct PackedRows {
  std::vector<int64_t> starts;      // [rows + 1]: row r holds the documents [starts[r], starts[r + 1]) of `documents`
  std::vector<uint32_t> documents;  // in the order of the rows
  int64_t cropped = 0;              // tokens of long documents that are not used
  int64_t padded = 0;               // tokens that rows lack
};

// InputError for a damaged index, for 2^32 - 1 or more documents, and when there are no tokens; std::invalid_argument
// unless 1 <= row_tokens <= 2^31 - 1.
PackedRows best_fit(const IndexReader& index, int64_t row_tokens);

}  // namespace iberis
