// Products of a few rows with packed matrices.
//
// A panel consists of up to kMaxVectors vectors of columns. It is stored row by row, so
// that a product reads it from beginning to end. A tile multiplies a few rows by a
// panel and keeps the sums in registers.
#ifndef JAXRNN_PRODUCT_H_
#define JAXRNN_PRODUCT_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "simd.h"

namespace jaxrnn::JAXRNN_TARGET {

constexpr int kMaxVectors = 4;
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

// c[m][.] = start[m][.] + sum_k a[m][k] panel[k][.], for M rows and V vectors.
template <int M, int V>
void Tile(In a, const float* __restrict panel, int64_t size, In start, Out c) {
  // With few accumulators, each multiply-add would wait for the previous one. Small
  // tiles therefore use several sums.
  constexpr int kSums = M * V >= 8 ? 1 : M * V >= 4 ? 2 : 4;
  const float* __restrict rows = a.data;
  const int64_t stride = a.stride, step = a.step;
  Vec sums[kSums][M][V] = {};
  const auto add = [&](int s, int64_t k) __attribute__((always_inline)) {
    Vec b[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) b[v] = Load(panel + (k * V + v) * kLanes);
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

using TileFunction = void (*)(In, const float*, int64_t, In, Out);

template <int V, int... M>
TileFunction TileOf(int64_t rows, std::integer_sequence<int, M...>) {
  static constexpr TileFunction kTiles[] = {Tile<M + 1, V>...};
  return kTiles[rows - 1];
}

inline TileFunction TileOf(int64_t rows, int vectors) {
  switch (vectors) {
    case 1:
      return TileOf<1>(rows, std::make_integer_sequence<int, MaxRows(1)>());
    case 2:
      return TileOf<2>(rows, std::make_integer_sequence<int, MaxRows(2)>());
    case 3:
      return TileOf<3>(rows, std::make_integer_sequence<int, MaxRows(3)>());
    default:
      return TileOf<4>(rows, std::make_integer_sequence<int, MaxRows(4)>());
  }
}

// Computes c = start + a * panel for a panel [size, vectors] and any number of rows, in
// tiles of about equal size. `start` may be c.
inline void Multiply(int64_t rows, int vectors, In a, const float* panel, int64_t size,
                     In start, Out c) {
  const int64_t most = MaxRows(vectors), tiles = (rows + most - 1) / most;
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    const int64_t end = rows * (i + 1) / tiles;
    TileOf(end - first, vectors)(a + first, panel, size, start + first, c + first);
    first = end;
  }
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_PRODUCT_H_
