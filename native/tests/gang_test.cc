// Every piece is done once, after all pieces of the phase before it; every job once.
#include "gang.h"

#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "executors.h"

namespace jaxrnn {
namespace {

void TestRun(Executor& executor, int64_t slots, int64_t phases) {
  // Not atomic: the thread sanitizer sees where pieces are not ordered.
  std::vector<int64_t> pieces(slots), phase_before[2];
  phase_before[0].assign(slots, -1);
  phase_before[1].assign(slots, -1);
  RunPhases(executor, slots, phases, [&](int64_t slot, int64_t phase) {
    for (int64_t before : phase_before[phase % 2])
      Check(before == phase - 1, "a phase starts after the one before it");
    phase_before[(phase + 1) % 2][slot] = phase;
    pieces[slot]++;
  });
  for (int64_t count : pieces) Check(count == phases, "a piece is done once");
}

// Jobs that themselves have phases.
void TestJobs(Executor& executor, int64_t threads, int64_t jobs) {
  std::vector<int64_t> pieces(jobs);
  RunJobs(executor, threads, jobs, [&](int64_t job) {
    TestRun(executor, 2, 3);
    pieces[job]++;
  });
  for (int64_t count : pieces) Check(count == 1, "a job is done once");
}

void TestJobOutOfMemory(Executor& executor) {
  int64_t caught = 0;
  try {
    RunJobs(executor, 2, 3, [](int64_t job) {
      if (job == 1) throw std::bad_alloc();
    });
  } catch (const std::bad_alloc&) {
    caught++;
  }
  Check(caught == 1, "an error of a job is the caller's");
}

void TestRuns(Executor& executor) {
  for (int64_t slots : {1, 2, 3, 8})
    for (int64_t phases : {0, 1, 2, 100}) TestRun(executor, slots, phases);
  for (int64_t threads : {1, 2, 4})
    for (int64_t jobs : {0, 1, 3, 9}) TestJobs(executor, threads, jobs);
  TestJobOutOfMemory(executor);
}

void TestCallsAtOnce(int64_t callers, int64_t workers) {
  PoolExecutor executor(workers, workers);
  std::vector<std::thread> threads;
  for (int64_t k = 0; k < callers; k++)
    threads.emplace_back([&executor] { TestRuns(executor); });
  for (std::thread& thread : threads) thread.join();
}

// The only worker is occupied until the call has ended.
void TestBusyWorker() {
  std::atomic<bool> ended{false};
  PoolExecutor executor(2, 1);
  executor.Schedule([&ended] {
    while (!ended) std::this_thread::yield();
  });
  TestRun(executor, 2, 10);
  ended = true;
}

}  // namespace
}  // namespace jaxrnn

int main() {
  using namespace jaxrnn;
  InlineExecutor at_once;
  TestRuns(at_once);
  {
    LateExecutor late;
    TestRuns(late);
  }
  TestBusyWorker();
  for (int64_t callers : {1, 4})
    for (int64_t workers : {1, 2, 3}) TestCallsAtOnce(callers, workers);
}
