// Work spread over the threads that torch has.
//
// Between two products of torch its OpenMP threads look out for work on their cores and give them to nobody, so other threads
// would have half of them. The OpenMP library is the one that torch has loaded, whichever it is: it is looked up in the
// process, and nothing is linked. Where there is none, the pool of decoding takes its place.
#pragma once

#include <cstdint>
#include <functional>

namespace iberis {

// work(begin, end) on ranges of at most `part` that make up [0, items), in at most `threads` threads at a time; returns
// when all are done. Which thread takes which range is left to chance. `work` must not throw.
void in_team(int64_t items, int64_t part, int threads, const std::function<void(int64_t begin, int64_t end)>& work);

}  // namespace iberis
