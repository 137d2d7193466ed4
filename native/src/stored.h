// Products of a few rows with matrices that are not packed.
//
// To pack a matrix takes as long as several steps of a few rows. These products read the
// matrix as the caller stores it, one row after another.
#ifndef JAXRNN_STORED_H_
#define JAXRNN_STORED_H_

#include <algorithm>
#include <cstdint>

#include "product.h"

namespace jaxrnn::JAXRNN_TARGET {

// Whether a product of so many rows reads each column of the matrix only once.
constexpr bool AreFew(int64_t rows) { return rows <= MaxRows(kMaxVectors); }

// Copies a few rows of a matrix, then multiplies them from there, because rows of the
// matrix that lie a power of two apart compete for the same cache sets.
inline void MultiplyCopied(int64_t rows, int vectors, In a, In matrix, int64_t size,
                           Out c) {
  constexpr int64_t kMost = 128;
  alignas(64) float panel[kMost * kMaxVectors * kLanes];
  const int64_t width = vectors * kLanes;
  for (int64_t k = 0; k < size; k += kMost) {
    const int64_t count = std::min(kMost, size - k);
    for (int64_t i = 0; i < count; i++) {
      for (int64_t j = 0; j < width; j += kLanes)
        Store(panel + i * width + j, Load((matrix + k + i).data + j));
    }
    const In columns = {a.data + k * a.step, a.stride, a.step};
    MultiplyBlock(rows, vectors, columns, {panel, width}, count, {c.data, c.stride}, c,
                  false);
  }
}

// Computes c += a * matrix for a matrix [size, vectors].
inline void MultiplyStored(int64_t rows, int64_t vectors, In a, In matrix, int64_t size,
                           Out c) {
  for (int64_t v = 0; v < vectors; v += kMaxVectors) {
    const int count = int(std::min<int64_t>(kMaxVectors, vectors - v));
    if (AreFew(rows)) {
      MultiplyBlock(rows, count, a, matrix, size, {c.data, c.stride}, c, false);
    } else {
      MultiplyCopied(rows, count, a, matrix, size, c);
    }
    matrix.data += kMaxVectors * kLanes;
    c.data += kMaxVectors * kLanes;
  }
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_STORED_H_
