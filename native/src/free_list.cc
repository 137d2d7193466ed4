#include "free_list.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#endif

namespace jaxrnn {
namespace {

constexpr size_t kLine = 64, kHugePage = 1 << 21;
// The C library allocates less than this without page faults.
constexpr size_t kLeast = 1 << 16;
// The most bytes that a process keeps: 256 MiB.
constexpr size_t kMost = 1 << 28;

// The size of the block for so many bytes: a power of two, so that calls of other
// shapes can use the block too. Small memory has the size that was requested.
size_t BlockSize(size_t bytes) {
  if (bytes < kLeast) return (bytes + kLine) / kLine * kLine;
  size_t size = kLeast;
  while (size < bytes) size *= 2;
  return size;
}

// Blocks of 2 MiB and more request huge pages, with fewer page faults and address
// translations.
void* NewBlock(size_t size) {
  void* block = std::aligned_alloc(size < kHugePage ? kLine : kHugePage, size);
  if (!block) throw std::bad_alloc();
  RequestHugePages(block, size);
  return block;
}

}  // namespace

void RequestHugePages(void* memory, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + bytes) / kHugePage * kHugePage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

void* FreeList::Take(size_t bytes) {
  const size_t size = BlockSize(bytes);
  if (size >= kLeast) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<void*>& blocks = blocks_[size];
    if (!blocks.empty()) {
      void* block = blocks.back();
      blocks.pop_back();
      kept_ -= size;
      ASAN_UNPOISON_MEMORY_REGION(block, size);
      return block;
    }
  }
  return NewBlock(size);
}

void FreeList::Give(void* memory, size_t bytes) noexcept {
  const size_t size = BlockSize(bytes);
  if (size < kLeast || size > most_) return std::free(memory);
  const std::lock_guard<std::mutex> lock(mutex_);
  // The kept blocks do not fit the calls of late.
  if (kept_ + size > most_) ClearLocked();
  try {
    blocks_[size].push_back(memory);
  } catch (const std::bad_alloc&) {
    return std::free(memory);
  }
  kept_ += size;
  ASAN_POISON_MEMORY_REGION(memory, size);
}

void FreeList::Clear() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ClearLocked();
}

void FreeList::ClearLocked() {
  for (auto& [size, blocks] : blocks_) {
    for (void* block : blocks) {
      ASAN_UNPOISON_MEMORY_REGION(block, size);
      std::free(block);
    }
    blocks.clear();
  }
  kept_ = 0;
}

size_t FreeList::kept() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return kept_;
}

namespace {

// Never destroyed, because other threads may run calls until the process ends.
FreeList& list = *new FreeList(kMost);

// A child of fork releases what its parent kept.
const int registered = pthread_atfork([] { list.Lock(); }, [] { list.Unlock(); },
                                      [] {
                                        list.ClearLocked();
                                        list.Unlock();
                                      });

}  // namespace

void* TakeMemory(size_t bytes) {
  void* memory = list.Take(bytes);
#if defined(JAXRNN_FILL_MEMORY)  // Tests detect reads of what was not written.
  std::memset(memory, 0xff, bytes);  // NaN.
#endif
  return memory;
}
void GiveMemory(void* memory, size_t bytes) noexcept { list.Give(memory, bytes); }

}  // namespace jaxrnn
