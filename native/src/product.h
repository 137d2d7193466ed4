// Products of a few rows with packed matrices.
//
// A panel consists of up to kMaxVectors vectors of columns. It is stored row by row, so
// that a product reads it from beginning to end. A tile multiplies a few rows by a
// panel and keeps the sums in registers. While a tile multiplies, it can prefetch the
// memory that the next product reads.
#ifndef JAXRNN_PRODUCT_H_
#define JAXRNN_PRODUCT_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "simd.h"

namespace jaxrnn::JAXRNN_TARGET {

constexpr int kMaxVectors = 4;
constexpr int kLine = 16;  // The floats of a cache line.
constexpr int MaxRows(int vectors) { return kAccumulators / vectors; }

// Rows of floats, `stride` floats apart. A stride of 0 repeats one row. The floats of a
// row are `step` floats apart; only the left operand of a product has another step
// than 1, if it is a transposed matrix.
template <typename Float>
struct Strided {
  Float* data;
  int64_t stride, step = 1;
  Strided operator+(int64_t rows) const { return {data + rows * stride, stride, step}; }
};
using In = Strided<const float>;
using Out = Strided<float>;

// Writes columns of `rows` as a panel's rows: panel[k][i] = rows[i][k] for i < count and
// k < size. The rest of the panel's rows, which are `width` floats long, becomes 0.
inline void PackTransposed(In rows, int64_t count, int64_t size, int64_t width,
                           float* panel) {
  // A block of columns is a cache line of each row.
  for (int64_t first = 0; first < size; first += kLine) {
    const int64_t end = std::min(first + kLine, size);
    for (int64_t i = 0; i < width; i++) {
      const float* row = rows.data + i * rows.stride;
      for (int64_t k = first; k < end; k++) panel[k * width + i] = i < count ? row[k] : 0;
    }
  }
}

// Memory that a tile prefetches: `bytes` of it for each of its prefetches, at most a
// cache line. An address, not a pointer, because it may lie beyond the panels.
struct Ahead {
  uintptr_t address;
  int64_t bytes;
};

// c[m][.] = start[m][.] + sum_k a[m][k] panel[k][.], for M rows and V vectors. Makes P
// prefetches for each row of the panel.
template <int M, int V, int P>
void Tile(In a, In panel, int64_t size, In start, Out c, Ahead ahead) {
  // With few accumulators, each multiply-add would wait for the previous one. Small
  // tiles therefore use several sums.
  constexpr int kSums = M * V >= 8 ? 1 : M * V >= 4 ? 2 : 4;
  const float* __restrict rows = a.data;
  const float* __restrict columns = panel.data;
  const int64_t stride = a.stride, step = a.step, width = panel.stride;
  Vec sums[kSums][M][V] = {};
  const auto add = [&](int s, int64_t k) __attribute__((always_inline)) {
    Vec b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) b[v] = Load(columns + k * width + v * kLanes);
    for (int p = 0; p < P; p++, ahead.address += ahead.bytes)
      __builtin_prefetch(reinterpret_cast<const void*>(ahead.address), 0, 2);
#pragma GCC unroll 24
    for (int m = 0; m < M; m++) {
      const float x = rows[m * stride + k * step];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sums[s][m][v] += x * b[v];
    }
  };
  int64_t k = 0;
  for (; k + kSums <= size; k += kSums) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; s++) add(s, k + s);
  }
  for (; k < size; k++) add(0, k);
#pragma GCC unroll 24
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      Vec total = sums[0][m][v];
      for (int s = 1; s < kSums; s++) total += sums[s][m][v];
      // `start` is added last, because a sum over many tiles has a smaller error than
      // one long sum.
      total += Load(start.data + m * start.stride + v * kLanes);
      Store(c.data + m * c.stride + v * kLanes, total);
    }
  }
}

using TileFunction = void (*)(In, In, int64_t, In, Out, Ahead);

template <int V, int P, int... M>
TileFunction TileOf(int64_t rows, std::integer_sequence<int, M...>) {
  static constexpr TileFunction kTiles[] = {Tile<M + 1, V, P>...};
  return kTiles[rows - 1];
}

template <int P>
TileFunction TileOf(int64_t rows, int vectors) {
  switch (vectors) {
    case 1:
      return TileOf<1, P>(rows, std::make_integer_sequence<int, MaxRows(1)>());
    case 2:
      return TileOf<2, P>(rows, std::make_integer_sequence<int, MaxRows(2)>());
    case 3:
      return TileOf<3, P>(rows, std::make_integer_sequence<int, MaxRows(3)>());
    default:
      return TileOf<4, P>(rows, std::make_integer_sequence<int, MaxRows(4)>());
  }
}

inline TileFunction TileOf(int64_t rows, int vectors, int64_t prefetches) {
  return prefetches == 0   ? TileOf<0>(rows, vectors)
         : prefetches == 1 ? TileOf<1>(rows, vectors)
                           : TileOf<2>(rows, vectors);
}

// Computes c = start + a * panel for a panel [size, vectors] and any number of rows, in
// tiles of about equal size. If `prefetches`, the tiles prefetch at least as much memory
// after the panel as the panel has, each tile an equal part.
inline void MultiplyBlock(int64_t rows, int vectors, In a, In panel, int64_t size,
                          In start, Out c, bool prefetches) {
  const int64_t most = MaxRows(vectors), tiles = (rows + most - 1) / most;
  const int64_t width = vectors * kLanes;
  int64_t each = 0;  // Prefetches for each row of the panel.
  Ahead ahead = {reinterpret_cast<uintptr_t>(panel.data + size * width), 0};
  if (prefetches) {
    each = (width + tiles * kLine - 1) / (tiles * kLine);
    ahead.bytes = sizeof(float) * ((width + tiles * each - 1) / (tiles * each));
  }
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    const int64_t end = rows * (i + 1) / tiles;
    TileOf(end - first, vectors, each)(a + first, panel, size, start + first, c + first,
                                       ahead);
    ahead.address += size * each * ahead.bytes;
    first = end;
  }
}

// Computes c = start + a * panel for a panel [size, vectors] and any number of rows.
// `start` may be c. If the panel is far and there are many tiles, multiplies one block
// of the panel after the other by all rows, and meanwhile prefetches the next block, or
// what follows the panel, which is usually the next panel. One or two tiles have too
// little time for prefetches: the first reads the panel in order, which the processor
// itself prefetches.
inline void Multiply(int64_t rows, int vectors, In a, const float* panel, int64_t size,
                     In start, Out c, bool far = false) {
  const int64_t width = vectors * kLanes;
  if (!far || rows <= 2 * MaxRows(vectors))
    return MultiplyBlock(rows, vectors, a, {panel, width}, size, start, c, false);
  constexpr int64_t kMost = 1 << 14;  // The most floats of a block: two fit in L2.
  const int64_t blocks = (size * width + kMost - 1) / kMost;
  for (int64_t i = 0, k = 0; i < blocks; i++) {
    const int64_t end = size * (i + 1) / blocks;
    const In columns = {a.data + k * a.step, a.stride, a.step};
    MultiplyBlock(rows, vectors, columns, {panel + k * width, width}, end - k,
                  k ? In{c.data, c.stride} : start, c, true);
    k = end;
  }
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_PRODUCT_H_
