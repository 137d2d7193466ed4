// Tests that freed memory is used again, that the kept memory has a limit, and that a
// child of fork releases the memory.
#include "free_list.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "check.h"

namespace jaxrnn {
namespace {

constexpr size_t kMiB = 1 << 20;

void TestBlocksAreUsedAgain() {
  FreeList list(16 * kMiB);
  void* block = list.Take(3 * kMiB);
  Check(reinterpret_cast<uintptr_t>(block) % (2 * kMiB) == 0, "huge pages fit");
  std::memset(block, 1, 3 * kMiB);
  list.Give(block, 3 * kMiB);
  Check(list.kept() == 4 * kMiB, "a block has a power of two as its size");
  void* other = list.Take(5 * kMiB);
  Check(other != block && list.kept() == 4 * kMiB, "a larger call has a block of its own");
  Check(list.Take(4 * kMiB) == block && list.kept() == 0, "the block is used again");
  list.Give(block, 4 * kMiB);
  list.Give(other, 5 * kMiB);
  Check(list.kept() == 12 * kMiB, "both are kept");
  list.Clear();
  Check(list.kept() == 0, "all is released");
}

void TestSmallAndHugeMemoryIsNotKept() {
  FreeList list(16 * kMiB);
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{1000}, 17 * kMiB}) {
    void* memory = list.Take(bytes);
    Check(reinterpret_cast<uintptr_t>(memory) % 64 == 0, "memory is aligned");
    list.Give(memory, bytes);
    Check(list.kept() == 0, "the memory is not kept");
  }
}

void TestTheLimit() {
  FreeList list(16 * kMiB);
  std::vector<void*> blocks(9);
  for (void*& block : blocks) block = list.Take(2 * kMiB);
  for (void* block : blocks) {
    list.Give(block, 2 * kMiB);
    Check(list.kept() <= 16 * kMiB, "the limit holds");
  }
  // The ninth block released the other eight, so a call of another size can keep its
  // memory.
  Check(list.kept() == 2 * kMiB, "a full list is released");
}

void TestThreads() {
  FreeList list(16 * kMiB);
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; k++) {
    threads.emplace_back([&list, k] {
      for (size_t i = 1; i < 200; i++) {
        const size_t bytes = (i % 7 + 1) * kMiB / 8;
        char* memory = static_cast<char*>(list.Take(bytes));
        memory[0] = memory[bytes - 1] = char(k);
        std::this_thread::yield();
        Check(memory[0] == k && memory[bytes - 1] == k, "a block has one owner");
        list.Give(memory, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The sanitizers support no threads in a child, but this child starts none.
void TestChildrenOfFork() {
  GiveMemory(TakeMemory(3 * kMiB), 3 * kMiB);
  const pid_t child = fork();
  if (child == 0) {
    void* memory = TakeMemory(3 * kMiB);
    std::memset(memory, 1, 3 * kMiB);
    GiveMemory(memory, 3 * kMiB);
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  Check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child takes memory");
}

}  // namespace
}  // namespace jaxrnn

int main() {
  using namespace jaxrnn;
  TestBlocksAreUsedAgain();
  TestSmallAndHugeMemoryIsNotKept();
  TestTheLimit();
  TestThreads();
  TestChildrenOfFork();
}
