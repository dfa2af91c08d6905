#include "decode/pool.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <thread>

namespace iberis {
namespace {

constexpr int kLooksBeforeYield = 64;
constexpr int64_t kMostHelpers = 0x7fff;
constexpr int64_t kPartsOfWhatIsLeft = 2;  // for each thread

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

Pool* the_pool = nullptr;

}  // namespace

// Pools are never destroyed: their threads look at them until the process ends.
Pool& Pool::shared() {
  static const bool made = [] {
    the_pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
    return true;
  }();
  (void)made;
  return *the_pool;
}

void Pool::run(int64_t items, int64_t least, int threads, const Work& work) {
  const auto helpers = static_cast<int>(std::min<int64_t>({threads, items / least, kMostHelpers}) - 1);
  if (helpers <= 0) {
    if (items > 0) work(0, items);
    return;
  }
  const std::lock_guard<std::mutex> turn(turn_);
  hire(helpers);
  work_ = &work;
  items_ = items;
  least_ = least;
  threads_ = helpers + 1;
  next_item_.store(0, std::memory_order_relaxed);
  const uint64_t job = (state_.load(std::memory_order_relaxed) & ~(kInside | kRoom)) + kOneJob;
  // Either this store is seen by one who is about to sleep, or that one is seen here.
  state_.store(job + kOneRoom * static_cast<uint64_t>(helpers));
  if (sleepers_.load() > 0) {
    const std::lock_guard<std::mutex> bed(bed_);
    wake_.notify_all();
  }
  take_parts();
  state_.fetch_and(~kRoom);
  for (int looks = 1; state_.load(std::memory_order_acquire) & kInside; ++looks) {
    pause_briefly();
    if (looks % kLooksBeforeYield == 0) std::this_thread::yield();
  }
}

void Pool::hire(int helpers) {
  try {
    for (; hired_ < helpers; ++hired_) std::thread([this] { help(); }).detach();
  } catch (const std::system_error&) {
    // No room for another thread: those that are there do the work.
  }
}

void Pool::help() {
  for (uint64_t last = 0;;) {
    uint64_t state = next_open_job(last);
    if (!state_.compare_exchange_strong(state, state - kOneRoom + 1)) continue;
    last = state / kOneJob;
    take_parts();
    state_.fetch_sub(1, std::memory_order_release);
  }
}

// The state in which a job other than `last` has room.
uint64_t Pool::next_open_job(uint64_t last) {
  uint64_t state = 0;
  const auto open = [&] {
    state = state_.load();
    return state / kOneJob != last && (state & kRoom);
  };
  const auto until = std::chrono::steady_clock::now() + kLookout;
  for (int looks = 1; !open(); ++looks) {
    pause_briefly();
    if (looks % kLooksBeforeYield != 0) continue;
    if (std::chrono::steady_clock::now() > until) {
      std::unique_lock<std::mutex> bed(bed_);
      ++sleepers_;
      wake_.wait(bed, open);
      --sleepers_;
      break;
    }
    std::this_thread::yield();
  }
  return state;
}

void Pool::take_parts() {
  for (int64_t begin = next_item_.load(std::memory_order_relaxed); begin < items_;) {
    const int64_t share = (items_ - begin) / (kPartsOfWhatIsLeft * threads_);
    const int64_t end = std::min(items_, begin + std::max(least_, share));
    if (!next_item_.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
    (*work_)(begin, end);
    begin = next_item_.load(std::memory_order_relaxed);
  }
}

}  // namespace iberis
