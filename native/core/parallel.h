// Loops over independent items on several threads, with a poll that the calling thread runs meanwhile.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pixcli {

// Called every 50 ms by the thread that started a loop, and at its end, with the number of items done.
// Returning false stops the loop after the chunks under way: this is how Ctrl-C and progress bars reach
// native code.
using Poll = std::function<bool(int64_t done)>;
constexpr std::chrono::milliseconds kPollInterval{50};

// -1 means all cores.
inline int ResolveNumThreads(int num_threads) {
  const int cores = std::max(1u, std::thread::hardware_concurrency());
  return num_threads <= 0 ? cores : num_threads;
}

// ParallelFor on the calling thread, which for little work is much sooner done than a thread of its own is
// there.
template <class Body>
bool SerialFor(int64_t n, int64_t chunk, const Poll& poll, Body&& body) {
  auto polled = std::chrono::steady_clock::now();
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const auto now = std::chrono::steady_clock::now();
    if (now - polled >= kPollInterval) {
      if (poll && !poll(begin)) return false;
      polled = now;
    }
    body(begin, std::min(begin + chunk, n), 0);
  }
  return !poll || poll(n);
}

// Runs body(begin, end, thread) over chunks of [0, n). Which thread takes which chunk varies, so results must
// depend on the items alone. Returns false if the poll stopped it; rethrows the first exception of a body.
// Where the system refuses a thread, those that there are do the work.
template <class Body>
bool ParallelFor(int64_t n, int64_t chunk, int num_threads, const Poll& poll, Body&& body) {
  chunk = std::max<int64_t>(chunk, 1);
  const int threads = static_cast<int>(
      std::min<int64_t>(ResolveNumThreads(num_threads), std::max<int64_t>((n + chunk - 1) / chunk, 1)));
  if (threads == 1) return SerialFor(n, chunk, poll, body);
  std::atomic<int64_t> next{0}, done{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable finished;
  int running = threads;
  std::exception_ptr error;
  const auto work = [&](int thread) {
    try {
      for (int64_t begin = next.fetch_add(chunk); begin < n && !stop; begin = next.fetch_add(chunk)) {
        const int64_t end = std::min(begin + chunk, n);
        body(begin, end, thread);
        done += end - begin;
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (--running == 0) finished.notify_all();
  };
  std::vector<std::thread> pool;
  pool.reserve(threads);
  try {
    for (int i = 0; i < threads; ++i) pool.emplace_back(work, i);
  } catch (const std::system_error&) {
    if (pool.empty()) return SerialFor(n, chunk, poll, body);
    const std::lock_guard<std::mutex> lock(mutex);
    running -= threads - static_cast<int>(pool.size());
  }
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (!finished.wait_for(lock, kPollInterval, [&] { return running == 0; })) {
      lock.unlock();
      if (poll && !stop && !poll(done)) stop = true;
      lock.lock();
    }
  }
  for (std::thread& thread : pool) thread.join();
  if (error) std::rethrow_exception(error);
  if (poll && !stop && !poll(done)) stop = true;
  return !stop;
}

}  // namespace pixcli
