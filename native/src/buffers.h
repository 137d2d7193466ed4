// Memory that the loops allocate.
#ifndef JAXRNN_BUFFERS_H_
#define JAXRNN_BUFFERS_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace jaxrnn::JAXRNN_TARGET {

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

// Allocates uninitialized floats, aligned to a cache line. `huge` requests huge pages:
// fewer page faults and address translations, but each fault clears 2 MiB, which is too
// slow for a short call.
inline Buffer Allocate(int64_t count, bool huge = false) {
#if !defined(MADV_HUGEPAGE)
  huge = false;
#endif
  const size_t unit = huge ? 1 << 21 : 64;
  // Full units: a huge page must lie within the memory for which it is requested.
  const size_t floats = std::max<int64_t>(count, 1);
  const size_t bytes = (sizeof(float) * floats + unit - 1) / unit * unit;
  void* memory = std::aligned_alloc(unit, bytes);
  if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return Buffer(static_cast<float*>(memory));
}

// The stride of rows with this many floats. Rows whose stride is a multiple of 256
// floats would compete for the same cache sets.
inline int64_t Stride(int64_t floats) {
  return floats % 256 == 0 ? floats + 16 : floats;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_BUFFERS_H_
