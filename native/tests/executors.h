// Executors for the tests.
#ifndef JAXRNN_EXECUTORS_H_
#define JAXRNN_EXECUTORS_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "executor.h"

namespace jaxrnn {

// Runs functions on `running` threads, but reports `threads` threads.
class PoolExecutor final : public Executor {
 public:
  PoolExecutor(int64_t threads, int64_t running) : threads_(threads) {
    for (int64_t k = 0; k < running; k++) pool_.emplace_back([this] { Work(); });
  }
  ~PoolExecutor() override {
    Schedule(nullptr);
    for (std::thread& thread : pool_) thread.join();
  }
  int64_t threads() const override { return threads_; }
  void Schedule(std::function<void()> function) override {
    std::lock_guard<std::mutex> lock(mutex_);
    functions_.push_back(std::move(function));
    changed_.notify_all();
  }

 private:
  // Runs functions until it finds an empty one, which it leaves in the queue to stop
  // the other threads.
  void Work() {
    while (true) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return !functions_.empty(); });
      std::function<void()> function = functions_.front();
      if (!function) return;
      functions_.pop_front();
      lock.unlock();
      function();
    }
  }

  const int64_t threads_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> functions_;
  std::vector<std::thread> pool_;
};

// Runs each function immediately, as XLA does if it has no threads.
class InlineExecutor final : public Executor {
 public:
  int64_t threads() const override { return 3; }
  void Schedule(std::function<void()> function) override { function(); }
};

// Runs all functions when it is destroyed, after the calls that scheduled them have
// ended.
class LateExecutor final : public Executor {
 public:
  ~LateExecutor() override {
    for (const std::function<void()>& function : functions_) function();
  }
  int64_t threads() const override { return 3; }
  void Schedule(std::function<void()> function) override {
    functions_.push_back(std::move(function));
  }

 private:
  std::vector<std::function<void()>> functions_;
};

}  // namespace jaxrnn

#endif  // JAXRNN_EXECUTORS_H_
