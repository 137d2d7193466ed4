// A team: threads that run a sequence of phases together.
#ifndef JAXRNN_TEAM_H_
#define JAXRNN_TEAM_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "executor.h"
#include "pause.h"

namespace jaxrnn {

// Runs function(worker, phase) once for each worker and phase. A phase begins when all
// workers have finished the previous one.
//
// A worker is the part of every phase that one thread usually runs. Each of the first
// workers has a thread; worker 0 has the caller's thread. A thread that waits a long
// time for a phase to end also runs workers that no thread has begun. Therefore, no
// thread waits for a thread that has not started, even if the executor is busy. A thread
// that loses its core while it runs a worker leaves the team, because it would probably
// delay later phases too.
//
// The function must not throw. It may be destroyed as soon as the caller's thread has
// finished, because all phases have then ended. Threads that notice this later, or that
// start later, read the workers but do not run the function. So the caller waits for
// phases to end, but never for threads, which may be off their cores.
template <typename Function>
class Team {
 public:
  Team(int64_t workers, int64_t phases, Function& function)
      : workers_(workers), phases_(phases), function_(function) {}

  // Runs the thread of worker `own`, from the current phase to the last.
  void Work(int64_t own) {
    for (int64_t phase = Current(); phase < phases_; phase++) {
      if (workers_[own].leaves.load(std::memory_order_relaxed)) return;
      if (!workers_[own].present.load(std::memory_order_relaxed))
        workers_[own].present.store(true, std::memory_order_relaxed);
      TryRun(own, phase);
      Clock::time_point waits;
      for (int64_t spins = 1; !IsOver(phase); spins++) {
        if (spins == kPatience / 20) Replace(phase, false);
        if (spins % kPatience == 0) {
          Replace(phase, true);
          if (own != 0 && phase == phases_ - 1) return;  // All work has begun.
          const Clock::time_point now = Clock::now();
          if (spins == kPatience) waits = now;
          if (now - waits > kLeast + 4 * (now - begins_) / (phase + 1)) Dismiss(phase);
        }
        if (spins > 20 * kPatience) std::this_thread::yield();
        Pause();
      }
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kPatience = 100;
  // A thread is off its core if others wait longer for it than this and four phases.
  static constexpr std::chrono::microseconds kLeast{200};
  // Each member has a separate cache line, so that the line of `begun` stays with the
  // worker's thread while all other threads read `ended`.
  struct Worker {
    alignas(64) std::atomic<int64_t> begun{0};  // The number of phases begun.
    alignas(64) std::atomic<int64_t> ended{0};
    alignas(64) std::atomic<bool> present{false};
    std::atomic<bool> leaves{false};  // Read together with `present`.
  };

  // Runs the workers whose thread is absent. If `late`, also runs the workers whose
  // thread is late; these threads then count as absent.
  void Replace(int64_t phase, bool late) {
    for (int64_t s = 0; s < int64_t(workers_.size()); s++) {
      if (!late && workers_[s].present.load(std::memory_order_relaxed)) continue;
      if (TryRun(s, phase)) workers_[s].present.store(false, std::memory_order_relaxed);
    }
  }

  // Makes the threads leave that have not finished the phase, except the caller's.
  void Dismiss(int64_t phase) {
    for (size_t s = 1; s < workers_.size(); s++) {
      if (workers_[s].ended.load(std::memory_order_acquire) > phase) continue;
      workers_[s].leaves.store(true, std::memory_order_relaxed);
      workers_[s].present.store(false, std::memory_order_relaxed);
    }
  }

  bool TryRun(int64_t worker, int64_t phase) {
    int64_t expected = phase;
    if (workers_[worker].begun.load(std::memory_order_relaxed) != phase) return false;
    if (!workers_[worker].begun.compare_exchange_strong(expected, phase + 1))
      return false;
    function_(worker, phase);
    workers_[worker].ended.store(phase + 1, std::memory_order_release);
    return true;
  }

  bool IsOver(int64_t phase) const {
    for (const Worker& worker : workers_) {
      if (worker.ended.load(std::memory_order_acquire) <= phase) return false;
    }
    return true;
  }

  // The first phase that at least one worker has not finished.
  int64_t Current() const {
    int64_t phase = phases_;
    for (const Worker& worker : workers_)
      phase = std::min(phase, worker.ended.load(std::memory_order_acquire));
    return phase;
  }

  std::vector<Worker> workers_;
  const int64_t phases_;
  const Clock::time_point begins_ = Clock::now();
  Function& function_;
};

template <typename Function>
void RunTeam(Executor& executor, int64_t threads, int64_t workers, int64_t phases,
             Function& function) {
  if (threads == 1) {
    for (int64_t phase = 0; phase < phases; phase++)
      for (int64_t s = 0; s < workers; s++) function(s, phase);
    return;
  }
  // Shared with the helpers, because they may need it after all work is done.
  const auto team = std::make_shared<Team<Function>>(workers, phases, function);
  try {
    for (int64_t s = 1; s < threads; s++)
      executor.Schedule([team, s] { team->Work(s); });
  } catch (const std::bad_alloc&) {  // The other threads do all the work.
  }
  team->Work(0);
}

// Runs the phases with one thread for each worker.
template <typename Function>
void RunPhases(Executor& executor, int64_t workers, int64_t phases, Function function) {
  RunTeam(executor, workers, workers, phases, function);
}

// Runs function(job) once for each job, on at most `threads` threads. Throws
// std::bad_alloc if a job runs out of memory.
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
  RunTeam(executor, std::min(threads, jobs), jobs, 1, run);
  if (failed) throw std::bad_alloc();
}

}  // namespace jaxrnn

#endif  // JAXRNN_TEAM_H_
