#include "training/team.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>

#include "decode/pool.h"

namespace iberis {
namespace {

// What gcc and clang make of "#pragma omp parallel"; every OpenMP library has it.
using Parallel = void (*)(void (*work)(void*), void* data, unsigned threads, unsigned flags);

struct Job {
  const std::function<void(int64_t, int64_t)>& work;
  int64_t items;
  int64_t part;
  std::atomic<int64_t> next{0};
};

void take_parts(void* data) {
  Job& job = *static_cast<Job*>(data);
  for (;;) {
    const int64_t begin = job.next.fetch_add(job.part, std::memory_order_relaxed);
    if (begin >= job.items) return;
    job.work(begin, std::min(begin + job.part, job.items));
  }
}

}  // namespace

void in_team(int64_t items, int64_t part, int threads, const std::function<void(int64_t, int64_t)>& work) {
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (!parallel) return Pool::shared().run(items, part, threads, work);
  Job job{work, items, part};
  const auto most = static_cast<unsigned>(std::min<int64_t>(threads, (items + part - 1) / part));
  if (most > 1) return parallel(take_parts, &job, most, 0);
  take_parts(&job);
}

}  // namespace iberis
