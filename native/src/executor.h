// Where functions are run on other threads.
#ifndef JAXRNN_EXECUTOR_H_
#define JAXRNN_EXECUTOR_H_

#include <cstdint>
#include <functional>

namespace jaxrnn {

struct Executor {
  virtual ~Executor() = default;

  // The number of threads that work may be split over; at least 1.
  virtual int64_t threads() const = 0;

  // Runs `function` once: later on another thread, or before this returns. It may start
  // after the call that scheduled it has ended.
  virtual void Schedule(std::function<void()> function) = 0;
};

}  // namespace jaxrnn

#endif  // JAXRNN_EXECUTOR_H_
