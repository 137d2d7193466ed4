// An interface to run functions on other threads.
#ifndef JAXRNN_EXECUTOR_H_
#define JAXRNN_EXECUTOR_H_

#include <cstdint>
#include <functional>

namespace jaxrnn {

struct Executor {
  virtual ~Executor() = default;

  // The number of threads among which work may be divided, at least 1.
  virtual int64_t threads() const = 0;

  // Runs `function` at most once, either before Schedule returns or later on another
  // thread. `function` may start after the call that scheduled it has ended.
  virtual void Schedule(std::function<void()> function) = 0;
};

}  // namespace jaxrnn

#endif  // JAXRNN_EXECUTOR_H_
