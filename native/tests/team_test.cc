// Tests that every worker runs once in each phase, after all workers have finished the
// previous phase, and that every job runs once; with an argument, in children of fork.
#include "team.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "executors.h"

namespace jaxrnn {
namespace {

void TestRun(Executor& executor, int64_t workers, int64_t phases) {
  // Not atomic, so that the thread sanitizer detects phases that are not synchronized.
  std::vector<int64_t> pieces(workers), phase_before[2];
  phase_before[0].assign(workers, -1);
  phase_before[1].assign(workers, -1);
  RunPhases(executor, workers, phases, [&](int64_t worker, int64_t phase) {
    for (int64_t before : phase_before[phase % 2])
      Check(before == phase - 1, "a phase starts after the one before it");
    phase_before[(phase + 1) % 2][worker] = phase;
    pieces[worker]++;
  });
  for (int64_t count : pieces) Check(count == phases, "a piece is done once");
}

// Runs jobs that run phases themselves.
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
  for (int64_t workers : {1, 2, 3, 8})
    for (int64_t phases : {0, 1, 2, 100}) TestRun(executor, workers, phases);
  for (int64_t threads : {1, 2, 4})
    for (int64_t jobs : {0, 1, 3, 9}) TestJobs(executor, threads, jobs);
  TestJobOutOfMemory(executor);
}

void TestCallsAtOnce(int64_t callers, int64_t pool) {
  PoolExecutor executor(pool, pool);
  std::vector<std::thread> threads;
  for (int64_t k = 0; k < callers; k++)
    threads.emplace_back([&executor] { TestRuns(executor); });
  for (std::thread& thread : threads) thread.join();
}

// Tests that a function finds the cores of the thread that scheduled it, and that a
// thread that slept does not wake on the caller's core.
void TestCores() {
#if defined(__linux__)
  constexpr int kTimes = 20;
  cpu_set_t allowed;
  sched_getaffinity(0, sizeof allowed, &allowed);
  Helpers helpers;
  int comparable = 0, same = 0;
  for (int k = 0; k < kTimes; k++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> core{-1};
    const int before = sched_getcpu();
    helpers.Schedule(
        [&] {
          cpu_set_t found;
          sched_getaffinity(0, sizeof found, &found);
          Check(CPU_EQUAL(&found, &allowed), "no core stays excluded");
          core = sched_getcpu();
        },
        1);
    const int after = sched_getcpu();
    while (core < 0) std::this_thread::yield();
    // The first function starts a thread. Later ones wake it.
    if (k == 0 || before != after) continue;
    comparable++;
    same += core == before;
  }
  if (CPU_COUNT(&allowed) > 1)
    Check(2 * same <= comparable, "a thread wakes on another core");
#endif
}

// Tests that a thread keeps a limit of its cores that a user sets while it sleeps.
void TestLimitedCores() {
#if defined(__linux__)
  cpu_set_t allowed, others, limit, found;
  sched_getaffinity(0, sizeof allowed, &allowed);
  Cores cores;  // Of this thread, which here also wakes itself.
  cores.Avoid();
  sched_getaffinity(0, sizeof others, &others);
  CPU_XOR(&limit, &allowed, &others);  // The core that is excluded, if there are others.
  if (CPU_COUNT(&limit) > 0) {
    sched_setaffinity(0, sizeof limit, &limit);
    cores.Allow();
    sched_getaffinity(0, sizeof found, &found);
    Check(CPU_EQUAL(&found, &limit), "the limit stays");
    sched_setaffinity(0, sizeof allowed, &allowed);
  }
#endif
}

// Tests a run that ends while the pool's only thread is busy.
void TestBusyThread() {
  std::atomic<bool> ended{false};
  PoolExecutor executor(2, 1);
  executor.Schedule([&ended] {
    while (!ended) std::this_thread::yield();
  });
  TestRun(executor, 2, 10);
  ended = true;
}

void TestFullExecutor() {
  FullExecutor full;
  TestRun(full, 4, 10);
}

// Runs phases on helpers of this process. Returns after a helper has run a function.
void TestProcess() {
  ProcessExecutor executor;
  for (int k = 0; k < 50; k++) TestRun(executor, 3, 10);
  std::atomic<bool> ran{false};
  executor.Schedule([&ran] { ran = true; });
  while (!ran) std::this_thread::yield();
}

// Tests children of fork, and their children, that fork while helpers start, run, wait
// for the next call, or sleep.
void TestForks(int generations) {
  std::atomic<bool> ended{false};
  std::thread caller([&ended] {
    ProcessExecutor executor;
    while (!ended) TestRun(executor, 3, 10);
  });
  for (int k = 0; k < 10; k++) {
    std::this_thread::sleep_for(std::chrono::microseconds(200 * k));
    if (k % 2 == 1) TestProcess();
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // Ends a child that waits forever.
      if (generations > 1 && k == 0) TestForks(generations - 1);
      TestProcess();
      std::_Exit(0);
    }
    int status = -1;
    Check(waitpid(child, &status, 0) == child && status == 0, "a child of fork runs");
  }
  ended = true;
  caller.join();
}

}  // namespace
}  // namespace jaxrnn

// With an argument, tests only children of fork, whose helpers start during a fork.
int main(int count, char**) {
  using namespace jaxrnn;
  if (count > 1) {
    TestForks(2);
    return 0;
  }
  InlineExecutor at_once;
  TestRuns(at_once);
  {
    LateExecutor late;
    TestRuns(late);
  }
  TestFullExecutor();
  TestCores();
  TestLimitedCores();
  TestBusyThread();
  for (int64_t callers : {1, 4})
    for (int64_t pool : {1, 2, 3}) TestCallsAtOnce(callers, pool);
}
