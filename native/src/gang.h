// Threads that run a sequence of phases together.
#ifndef JAXRNN_GANG_H_
#define JAXRNN_GANG_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "executor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace jaxrnn {

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Runs function(slot, phase) once for each slot and phase; a phase begins when all
// slots have ended the one before.
//
// The first slots each have a worker; slot 0's is the caller. A worker whose phase
// takes long to end also runs slots that nobody has begun: so nothing waits for a
// thread that has not started, however busy the executor is.
template <typename Function>
class Gang {
 public:
  Gang(int64_t slots, int64_t phases, Function& function)
      : slots_(slots), phases_(phases), function_(function) {}

  // Takes part as the worker of a slot, from the current phase to the last.
  void Work(int64_t own) {
    for (int64_t phase = Current(); phase < phases_; phase++) {
      if (!slots_[own].present.load(std::memory_order_relaxed))
        slots_[own].present.store(true, std::memory_order_relaxed);
      TryRun(own, phase);
      for (int64_t spins = 1; !IsOver(phase); spins++) {
        if (spins == kPatience / 20) Replace(phase, false);
        if (spins % kPatience == 0) {
          Replace(phase, true);
          if (own != 0 && phase == phases_ - 1) return;  // All is begun.
        }
        if (spins > 20 * kPatience) std::this_thread::yield();
        Pause();
      }
    }
  }

  // A helper's whole life; it may begin when all phases are over, and must not then
  // look at it.
  void Help(int64_t own) {
    if (helpers_.fetch_add(1) >= 0) Work(own);
    helpers_.fetch_sub(1);
  }

  // Waits for helpers that are inside, and keeps others out.
  void Close() {
    helpers_.fetch_sub(kClosed);
    while (helpers_.load() != -kClosed) Pause();
  }

 private:
  static constexpr int64_t kPatience = 100, kClosed = int64_t{1} << 40;
  // On lines of the cache of their own: `begun` stays with the slot's worker, while all
  // others read `ended`.
  struct Slot {
    alignas(64) std::atomic<int64_t> begun{0};  // The phases that were begun.
    alignas(64) std::atomic<int64_t> ended{0};
    alignas(64) std::atomic<bool> present{false};
  };

  // Runs the slots whose worker is absent; late ones, too, which then count as absent.
  void Replace(int64_t phase, bool late) {
    for (int64_t s = 0; s < int64_t(slots_.size()); s++) {
      if (!late && slots_[s].present.load(std::memory_order_relaxed)) continue;
      if (TryRun(s, phase)) slots_[s].present.store(false, std::memory_order_relaxed);
    }
  }

  bool TryRun(int64_t slot, int64_t phase) {
    int64_t expected = phase;
    if (slots_[slot].begun.load(std::memory_order_relaxed) != phase) return false;
    if (!slots_[slot].begun.compare_exchange_strong(expected, phase + 1)) return false;
    function_(slot, phase);
    slots_[slot].ended.store(phase + 1, std::memory_order_release);
    return true;
  }

  bool IsOver(int64_t phase) const {
    for (const Slot& slot : slots_) {
      if (slot.ended.load(std::memory_order_acquire) <= phase) return false;
    }
    return true;
  }

  // The first phase that some slot has not ended.
  int64_t Current() const {
    int64_t phase = phases_;
    for (const Slot& slot : slots_)
      phase = std::min(phase, slot.ended.load(std::memory_order_acquire));
    return phase;
  }

  std::vector<Slot> slots_;
  const int64_t phases_;
  Function& function_;
  std::atomic<int64_t> helpers_{0};
};

template <typename Function>
void RunGang(Executor& executor, int64_t workers, int64_t slots, int64_t phases,
             Function& function) {
  if (workers == 1) {
    for (int64_t phase = 0; phase < phases; phase++)
      for (int64_t s = 0; s < slots; s++) function(s, phase);
    return;
  }
  // Shared with the helpers, since one may begin after all is done.
  const auto gang = std::make_shared<Gang<Function>>(slots, phases, function);
  struct Closing {  // Also if Schedule is out of memory: helpers use the function.
    Gang<Function>& gang;
    ~Closing() { gang.Close(); }
  } closing{*gang};
  for (int64_t s = 1; s < workers; s++) executor.Schedule([gang, s] { gang->Help(s); });
  gang->Work(0);
}

// Runs the phases with a thread for each slot.
template <typename Function>
void RunPhases(Executor& executor, int64_t slots, int64_t phases, Function function) {
  RunGang(executor, slots, slots, phases, function);
}

// Runs function(job) once for each job, with so many threads at most; if one is out of
// memory, so is the caller.
template <typename Function>
void RunJobs(Executor& executor, int64_t threads, int64_t jobs, Function function) {
  std::atomic<bool> failed{false};
  const auto run = [&](int64_t job, int64_t) {
    try {
      function(job);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  RunGang(executor, std::min(threads, jobs), jobs, 1, run);
  if (failed) throw std::bad_alloc();
}

}  // namespace jaxrnn

#endif  // JAXRNN_GANG_H_
