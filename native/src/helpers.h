// Threads that run functions for calls, and sleep between calls.
#ifndef JAXRNN_HELPERS_H_
#define JAXRNN_HELPERS_H_

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "cores.h"
#include "pause.h"

namespace jaxrnn {

// XLA's threads cannot be used, because the caller does not know which of them it
// wakes, and so cannot choose the core.
class Helpers {
 public:
  Helpers() = default;
  ~Helpers() {
    Schedule(nullptr, 0);
    for (std::thread& thread : threads_) thread.join();
  }

  // Runs `function` on one of at most `most` threads. If no thread can be started, the
  // function never runs.
  void Schedule(std::function<void()> function, int64_t most) {
    const std::lock_guard<std::mutex> lock(mutex_);
    functions_.push_back(std::move(function));
    if (lingering_ < functions_.size()) {
      if (!sleeping_.empty()) {
        Wake();
      } else if (int64_t(threads_.size()) < most) {
        Start();
      }
    }
    if (threads_.empty()) functions_.clear();
    count_ = functions_.size();
  }

 private:
  // A training step makes several calls in a row. To wake a thread takes as long as
  // this, so a thread stays awake for so long after its work.
  static constexpr std::chrono::microseconds kLinger{50};

  struct Sleeper {
    bool asleep = true;
    std::condition_variable woken;
    Cores cores;
  };

  void Start() {
    try {
      threads_.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {  // There are too many threads.
    }
  }

  void Wake() {
    Sleeper& sleeper = *sleeping_.back();
    sleeping_.pop_back();
    sleeper.cores.Avoid();
    sleeper.asleep = false;
    sleeper.woken.notify_one();
  }

  // Runs functions until it finds an empty one, which it leaves in the queue to stop
  // the other threads.
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      if (functions_.empty()) Linger(lock);
      if (functions_.empty()) Sleep(lock);
      if (functions_.empty()) continue;  // Another thread was faster.
      std::function<void()> function = functions_.front();
      if (!function) return WakeAll();
      functions_.pop_front();
      count_ = functions_.size();
      lock.unlock();
      function();
      function = nullptr;
      lock.lock();
    }
  }

  void Linger(std::unique_lock<std::mutex>& lock) {
    const auto end = std::chrono::steady_clock::now() + kLinger;
    lingering_++;
    lock.unlock();
    while (count_ == 0 && std::chrono::steady_clock::now() < end) Pause();
    lock.lock();
    lingering_--;
  }

  void Sleep(std::unique_lock<std::mutex>& lock) {
    Sleeper self;
    sleeping_.push_back(&self);
    self.woken.wait(lock, [&] { return !self.asleep; });
    self.cores.Allow();
  }

  void WakeAll() {
    while (!sleeping_.empty()) Wake();
  }

  std::mutex mutex_;
  std::deque<std::function<void()>> functions_;
  std::atomic<size_t> count_{0};  // The size of `functions_`, read while unlocked.
  std::vector<Sleeper*> sleeping_;
  size_t lingering_ = 0;
  std::vector<std::thread> threads_;
};

// The helpers of this process.
class ProcessHelpers {
 public:
  // Starts no thread. The helpers are never destroyed, because their threads may run
  // until the process ends.
  static Helpers& Get() {
    Helpers* helpers = helpers_.load();
    if (helpers != nullptr) return *helpers;
    auto made = std::make_unique<Helpers>();
    if (helpers_.compare_exchange_strong(helpers, made.get())) return *made.release();
    return *helpers;  // Another thread was faster.
  }

 private:
  // Runs in a child of fork, which has none of its parent's threads, and where no
  // thread will ever release the mutex if one of those threads held it. So the child
  // leaves its parent's helpers as they are, and makes its own when it needs them.
  static void Leave() { helpers_ = nullptr; }

  // No static variable of `Get`: if a thread were to initialize it during a fork, the
  // child would wait for that thread forever.
  inline static std::atomic<Helpers*> helpers_{nullptr};
  inline static const int registered_ = pthread_atfork(nullptr, nullptr, Leave);
};

}  // namespace jaxrnn

#endif  // JAXRNN_HELPERS_H_
