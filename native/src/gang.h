// Threads that work together on a sequence of phases.
#ifndef JAXRNN_GANG_H_
#define JAXRNN_GANG_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "executor.h"

namespace jaxrnn {

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The work of one call of RunPhases: in each phase one piece for each slot.
//
// A worker claims a piece, so that nobody waits for a worker that has not started: the
// others do its pieces. While a piece is not done, the call has not returned, and the
// function that does the pieces exists; it is only called for a piece that was claimed.
class Gang {
 public:
  using Function = void (*)(const void* data, int64_t slot, int64_t phase);

  Gang(int64_t slots, int64_t phases, Function function, const void* data)
      : phases_(phases), function_(function), data_(data), claims_(slots) {}

  // Works from the current phase until all are done, first on the pieces of slot `own`.
  void Work(int64_t own) {
    for (int64_t phase = Done() / slots(); phase < phases_; phase++) {
      for (int64_t k = 0; k < slots(); k++) Try((own + k) % slots(), phase);
      Wait(slots() * (phase + 1));
    }
  }

 private:
  static constexpr int kCacheLine = 64;
  static constexpr int kSpins = 2000;  // About as long as a change of threads takes.

  // The number of a slot's pieces that have been claimed.
  struct alignas(kCacheLine) Claims {
    std::atomic<int64_t> count{0};
  };

  int64_t slots() const { return claims_.size(); }
  int64_t Done() const { return done_.load(std::memory_order_acquire); }

  // Does the piece unless it has been claimed.
  void Try(int64_t slot, int64_t phase) {
    std::atomic<int64_t>& count = claims_[slot].count;
    int64_t expected = phase;
    if (count.load(std::memory_order_relaxed) != phase ||
        !count.compare_exchange_strong(expected, phase + 1, std::memory_order_relaxed))
      return;
    function_(data_, slot, phase);
    done_.fetch_add(1, std::memory_order_acq_rel);
  }

  void Wait(int64_t pieces) const {
    for (int spins = 0; Done() < pieces; spins++) {
      Pause();
      if (spins >= kSpins) std::this_thread::yield();
    }
  }

  const int64_t phases_;
  const Function function_;
  const void* const data_;
  std::vector<Claims> claims_;
  alignas(kCacheLine) std::atomic<int64_t> done_{0};  // Pieces, of all slots.
};

// Calls function(slot, phase) once for each slot in each phase, on the calling thread
// and on up to slots - 1 others. A phase starts when the one before it is done, and
// sees what it wrote. The function must not throw.
template <typename Function>
void RunPhases(Executor& executor, int64_t slots, int64_t phases,
               const Function& function) {
  auto call = [](const void* data, int64_t slot, int64_t phase) {
    (*static_cast<const Function*>(data))(slot, phase);
  };
  auto gang = std::make_shared<Gang>(slots, phases, call, &function);
  for (int64_t slot = 1; slot < slots; slot++)
    executor.Schedule([gang, slot] { gang->Work(slot); });
  gang->Work(0);
}

}  // namespace jaxrnn

#endif  // JAXRNN_GANG_H_
