// Memory that the loops allocate.
#ifndef JAXRNN_BUFFERS_H_
#define JAXRNN_BUFFERS_H_

#include <algorithm>
#include <cstdint>
#include <memory>

#include "free_list.h"

namespace jaxrnn::JAXRNN_TARGET {

struct Give {
  size_t bytes = 0;
  void operator()(float* p) const { GiveMemory(p, bytes); }
};
using Buffer = std::unique_ptr<float[], Give>;

// Allocates uninitialized floats, aligned to a cache line.
inline Buffer Allocate(int64_t count) {
  const size_t bytes = sizeof(float) * std::max<int64_t>(count, 1);
  return Buffer(static_cast<float*>(TakeMemory(bytes)), Give{bytes});
}

// The stride of rows with this many floats. Rows whose stride is a multiple of 256
// floats would compete for the same cache sets.
inline int64_t Stride(int64_t floats) {
  return floats % 256 == 0 ? floats + 16 : floats;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_BUFFERS_H_
