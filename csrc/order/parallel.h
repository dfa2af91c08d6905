// for_each_part(parts, work): work(0) .. work(parts - 1), each in a thread of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace iberis {

// As many parts as there are cores, but none smaller than is worth a thread.
inline uint64_t parts_of(uint64_t items, uint64_t worth_a_thread) {
  const uint64_t cores = std::max(1U, std::thread::hardware_concurrency());
  return std::clamp<uint64_t>(items / worth_a_thread, 1, cores);
}

// `work` must not throw.
template <typename Work>
void for_each_part(uint64_t parts, const Work& work) {
  std::vector<std::thread> threads;
  for (uint64_t part = 1; part < parts; ++part) threads.emplace_back(work, part);
  work(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace iberis
