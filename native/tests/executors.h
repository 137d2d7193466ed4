// Executors for the tests.
#ifndef JAXRNN_EXECUTORS_H_
#define JAXRNN_EXECUTORS_H_

#include <new>
#include <utility>
#include <vector>

#include "executor.h"
#include "helpers.h"

namespace jaxrnn {

// Runs functions on at most `running` threads, but reports `threads` threads.
class PoolExecutor final : public Executor {
 public:
  PoolExecutor(int64_t threads, int64_t running)
      : threads_(threads), running_(running) {}
  int64_t threads() const override { return threads_; }
  void Schedule(std::function<void()> function) override {
    helpers_.Schedule(std::move(function), running_);
  }

 private:
  const int64_t threads_, running_;
  Helpers helpers_;
};

// Runs functions on two threads of this process's helpers.
class ProcessExecutor final : public Executor {
 public:
  int64_t threads() const override { return 3; }
  void Schedule(std::function<void()> function) override {
    ProcessHelpers::Get().Schedule(std::move(function), 2);
  }
};

// Runs one function on another thread, and has no memory for more.
class FullExecutor final : public Executor {
 public:
  int64_t threads() const override { return 3; }
  void Schedule(std::function<void()> function) override {
    if (scheduled_++ > 0) throw std::bad_alloc();
    helpers_.Schedule(std::move(function), 1);
  }

 private:
  int64_t scheduled_ = 0;
  Helpers helpers_;
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
