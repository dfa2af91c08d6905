// A few threads that stay, for work of microseconds. One pool a process.
//
// * Whoever is free takes a part of what is left, the caller among them: large ones first, for memory is read best in
//   long runs, and small ones at the end, so that all end together. A thread that is still waking up, or whose core
//   something else has, is not waited for, unless it is in the middle of a part.
// * After its last part a thread looks out for the next job for kLookout, giving its core away to whoever wants it, then
//   sleeps. The threads of OpenMP, which do so for milliseconds and give nothing away, are in the way of any other pool.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

namespace iberis {

class Pool {
 public:
  // A forked child has one of its own, for threads do not survive a fork.
  static Pool& shared();

  using Work = std::function<void(int64_t begin, int64_t end)>;

  // Work on ranges that make up [0, items), none but the last shorter than `least`, in at most `threads` threads at a
  // time; returns when all are done. Jobs of several callers come one after the other. `work` must not throw.
  void run(int64_t items, int64_t least, int threads, const Work& work);

 private:
  static constexpr std::chrono::microseconds kLookout{200};
  // Of state_: helpers inside the job, how many more may join (none: the job is closed), the job's number.
  static constexpr uint64_t kInside = 0xffff;
  static constexpr uint64_t kOneRoom = 0x10000;
  static constexpr uint64_t kRoom = 0xffff * kOneRoom;
  static constexpr uint64_t kOneJob = uint64_t{1} << 32;

  void hire(int helpers);
  void help();
  uint64_t next_open_job(uint64_t last);
  void take_parts();

  std::mutex turn_;   // of the callers
  int hired_ = 0;
  std::atomic<uint64_t> state_{0};
  const Work* work_ = nullptr;  // these four are written while nobody is inside
  int64_t items_ = 0;
  int64_t least_ = 1;
  int64_t threads_ = 1;
  std::atomic<int64_t> next_item_{0};

  std::mutex bed_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
};

}  // namespace iberis
