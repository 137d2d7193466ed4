// Memory that the loops allocate.
#ifndef JAXRNN_BUFFERS_H_
#define JAXRNN_BUFFERS_H_

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

// Allocates uninitialized floats, aligned to a cache line.
inline Buffer Allocate(int64_t count) {
  const size_t bytes = (sizeof(float) * std::max<int64_t>(count, 1) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, bytes);
  if (!memory) throw std::bad_alloc();
  return Buffer(static_cast<float*>(memory));
}

// The stride of rows with this many floats. Rows whose stride is a multiple of 256
// floats would compete for the same cache sets.
inline int64_t Stride(int64_t floats) {
  return floats % 256 == 0 ? floats + 16 : floats;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_BUFFERS_H_
