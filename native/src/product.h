// Products of a few rows with matrices that were packed once.
//
// A panel is up to four vectors of columns. It is stored row by row, so that a product
// reads it from its beginning to its end; the products of a tile of rows with it are
// kept in registers.
#ifndef JAXRNN_PRODUCT_H_
#define JAXRNN_PRODUCT_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "simd.h"

namespace jaxrnn::JAXRNN_TARGET {

constexpr int kMaxVectors = 4;
constexpr int MaxRows(int vectors) { return kAccumulators / vectors; }

// c[m][.] = start[m][.] + sum_k a[m][k] panel[k][.], for M rows and V vectors.
template <int M, int V>
void Tile(const float* __restrict a, int64_t lda, const float* __restrict panel,
          int64_t size, const float* start, int64_t start_stride, float* c) {
  // With few accumulators each product would wait for the one before: several sums
  // then.
  constexpr int kSums = M * V >= 8 ? 1 : M * V >= 4 ? 2 : 4;
  Vec sums[kSums][M][V];
#pragma GCC unroll 24
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      sums[0][m][v] = Load(start + m * start_stride + v * kLanes);
      for (int s = 1; s < kSums; s++) sums[s][m][v] = Vec{};
    }
  }
  int64_t k = 0;
  for (; k + kSums <= size; k += kSums) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; s++) {
      Vec b[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) b[v] = Load(panel + ((k + s) * V + v) * kLanes);
#pragma GCC unroll 24
      for (int m = 0; m < M; m++) {
        const float x = a[m * lda + k + s];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[s][m][v] += x * b[v];
      }
    }
  }
  for (; k < size; k++) {
#pragma GCC unroll 24
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++)
        sums[0][m][v] += a[m * lda + k] * Load(panel + (k * V + v) * kLanes);
    }
  }
#pragma GCC unroll 24
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      Vec total = sums[0][m][v];
      for (int s = 1; s < kSums; s++) total += sums[s][m][v];
      Store(c + (m * V + v) * kLanes, total);
    }
  }
}

using TileFunction = void (*)(const float*, int64_t, const float*, int64_t,
                              const float*, int64_t, float*);

template <int V, int... M>
TileFunction TileOf(int rows, std::integer_sequence<int, M...>) {
  static constexpr TileFunction kTiles[] = {Tile<M + 1, V>...};
  return kTiles[rows - 1];
}

inline TileFunction TileOf(int rows, int vectors) {
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

// Calls tile(first, rows) for tiles of about equal size that make up `rows` rows.
template <typename F>
void ForTiles(int64_t rows, int vectors, F tile) {
  const int64_t most = MaxRows(vectors), tiles = (rows + most - 1) / most;
  for (int64_t i = 0, first = 0; i < tiles; i++) {
    const int64_t end = rows * (i + 1) / tiles;
    tile(first, int(end - first));
    first = end;
  }
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_PRODUCT_H_
