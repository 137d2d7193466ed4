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
// they take longer to get, but an address in them is found faster.
inline Buffer Allocate(int64_t count, bool huge = false) {
  const size_t unit = huge ? 1 << 21 : 64;
  const size_t bytes = sizeof(float) * std::max<int64_t>(count, 1);
  void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
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
