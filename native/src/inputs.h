// Computes the cotangent of the inputs from the cotangents of all products. Skips the
// steps of finished rows.
#ifndef JAXRNN_INPUTS_H_
#define JAXRNN_INPUTS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "division.h"
#include "rows.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Multiplies the cotangents of each product by its transposed matrix. The first phase
// packs the matrices. The second phase divides the steps among the workers.
class InputsLoop {
 public:
  InputsLoop(const Inputs& entry, int64_t workers)
      : entry_(entry),
        vectors_(Padded(entry.sizes.depth) / kLanes),
        positions_(AlivePositions(entry.sizes, entry.lengths)) {
    int64_t columns = 0, stride = 0;
    for (int s = 0; s < entry.products; s++) {
      columns += entry.columns[s];
      stride = std::max(stride, Stride(entry.columns[s]));
    }
    matrices_ = Allocate(columns * vectors_ * kLanes);
    far_ = AreFar(columns * vectors_ * kLanes);
    for (int64_t s = 0; s < workers; s++) {
      workers_.push_back(
          {VectorRange(entry.sizes.depth, s, workers).Panels(kMaxVectors),
           Allocate(kBlockSteps * stride),
           Allocate(kBlockSteps * vectors_ * kLanes)});
    }
  }

  int64_t phases() const { return 2; }

  void Run(int64_t number, int64_t phase) {
    Worker& worker = workers_[number];
    if (phase == 0) return Pack(worker);
    const int64_t workers = workers_.size(), count = positions_.size();
    const int64_t all = entry_.sizes.batch * entry_.sizes.time,
                  depth = entry_.sizes.depth;
    const int64_t begin = count * number / workers,
                  end = count * (number + 1) / workers;
    // Each worker also zeros the padding after the previous worker's last step. The
    // last worker also zeros the padding at the end.
    int64_t written = begin ? positions_[begin - 1] + 1 : 0;
    for (int64_t first = begin; first < end; first += kBlockSteps) {
      const int64_t steps = std::min(kBlockSteps, end - first);
      MultiplyBlock(worker, first, steps);
      for (int64_t n = 0; n < steps; n++) {
        const int64_t position = positions_[first + n];
        Zero(written, position);
        std::memcpy(entry_.ct_x + position * depth,
                    &worker.products[n * vectors_ * kLanes], sizeof(float) * depth);
        written = position + 1;
      }
    }
    if (number == workers - 1) Zero(written, all);
  }

 private:
  static constexpr int64_t kBlockSteps = 96;  // The number of steps multiplied at once.
  struct Worker {
    std::vector<Panel> panels;  // The panels that the worker packs.
    Buffer ct_zs, products;     // For a block of steps.
  };

  // Packs the worker's panels of the transposed matrices [columns, vectors], one
  // product after another. The panels of a matrix are in order.
  void Pack(Worker& worker) {
    float* matrix = matrices_.get();
    for (int s = 0; s < entry_.products; s++) {
      const int64_t columns = entry_.columns[s];
      for (const Panel& panel : worker.panels) {
        const int64_t first = panel.first * kLanes, width = panel.count * kLanes;
        PackTransposed({entry_.kernel[s] + first * columns, columns},
                       std::min(width, entry_.sizes.depth - first), columns, width,
                       matrix + first * columns);
      }
      matrix += vectors_ * kLanes * columns;
    }
  }

  void MultiplyBlock(Worker& worker, int64_t first, int64_t steps) {
    const int64_t width = vectors_ * kLanes;
    const float* matrix = matrices_.get();
    for (int s = 0; s < entry_.products; s++) {
      const int64_t columns = entry_.columns[s], stride = Stride(columns);
      for (int64_t n = 0; n < steps; n++) {
        std::memcpy(&worker.ct_zs[n * stride],
                    entry_.ct_zs[s] + positions_[first + n] * columns,
                    sizeof(float) * columns);
      }
      for (const Worker& owner : workers_) {
        for (const Panel& panel : owner.panels) {
          float* c = &worker.products[panel.first * kLanes];
          const In start = s ? In{c, width} : In{kZeros, 0};
          Multiply(steps, panel.count, {worker.ct_zs.get(), stride},
                   matrix + panel.first * kLanes * columns, columns, start, {c, width},
                   far_);
        }
      }
      matrix += vectors_ * kLanes * columns;
    }
  }

  void Zero(int64_t begin, int64_t end) {
    if (begin < end) {
      std::memset(entry_.ct_x + begin * entry_.sizes.depth, 0,
                  sizeof(float) * (end - begin) * entry_.sizes.depth);
    }
  }

  const Inputs& entry_;
  const int64_t vectors_;
  const std::vector<int64_t> positions_;
  Buffer matrices_;
  bool far_;  // Whether the matrices are far.
  std::vector<Worker> workers_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_INPUTS_H_
