// Large blocks of memory that a process keeps between calls.
#ifndef JAXRNN_FREE_LIST_H_
#define JAXRNN_FREE_LIST_H_

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace jaxrnn {

// The first write to each page of new memory causes a page fault, which takes about as
// long as 10,000 multiply-adds of vectors. So memory that a call has freed is kept for
// later calls.
class FreeList {
 public:
  // Keeps at most `most` bytes.
  explicit FreeList(size_t most) : most_(most) {}
  ~FreeList() { Clear(); }
  FreeList(const FreeList&) = delete;
  FreeList& operator=(const FreeList&) = delete;

  // Returns uninitialized memory, aligned to a cache line. Throws std::bad_alloc.
  void* Take(size_t bytes);
  // Takes back the memory of a call of Take with this size.
  void Give(void* memory, size_t bytes) noexcept;
  // Releases everything that is kept.
  void Clear();
  // The number of bytes that are kept.
  size_t kept();

  // For fork: the child needs the mutex in a known state.
  void Lock() { mutex_.lock(); }
  void Unlock() { mutex_.unlock(); }
  void ClearLocked();

 private:
  const size_t most_;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> blocks_;  // By size.
  size_t kept_ = 0;
};

// Requests huge pages for memory that has not been written, as far as they fit into it:
// each causes one page fault in place of 512.
void RequestHugePages(void* memory, size_t bytes);

// Take and give memory of the list of this process.
void* TakeMemory(size_t bytes);
void GiveMemory(void* memory, size_t bytes) noexcept;

}  // namespace jaxrnn

#endif  // JAXRNN_FREE_LIST_H_
