// The backward loop of every cell. It computes the cotangents of products and states.
#ifndef JAXRNN_BACKWARD_H_
#define JAXRNN_BACKWARD_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "carried.h"
#include "division.h"
#include "loops.h"
#include "product.h"
#include "rows.h"
#include "stages.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Runs the cell C backward over all steps of a row block. Each worker processes some of
// the units. A phase first multiplies the product cotangents from the previous phase by
// the transposed state matrix of their stage. Then it runs the element-wise work of the
// preceding stage backward; the last stage of step t - 1 precedes the first stage of
// step t. The last phase only multiplies. The loop adds to the cotangents of the
// reset states, which must be zeros before.
template <typename C>
class BackwardLoop {
 public:
  BackwardLoop(const Backward& entry, RowBlock row_block, int64_t workers)
      : entry_(entry),
        sizes_(entry.sizes),
        cell_(sizes_),
        rows_(sizes_, entry.lengths, row_block),
        stride_(Stride(LongestOperand())),
        row_(entry.settings, sizes_.units) {
    for (Buffer& operand : operands_) operand = Allocate(rows_.count() * stride_);
    for (int64_t s = 0; s < workers; s++) {
      const std::vector<VectorRange> ranges = cell_.Ranges(s, workers);
      workers_.push_back({ranges, Carried<C::kCarried>(ranges[0], rows_.count())});
      AllocateMemory(workers_.back());
    }
  }

  int64_t phases() const { return rows_.steps() * C::kStages + 1; }

  // Everything is inlined, because a call would store the vectors of the element-wise
  // work to memory.
  [[gnu::flatten]] void Run(int64_t number, int64_t phase) {
    Worker& worker = workers_[number];
    if (phase == 0) Prepare(worker);
    const int64_t t = rows_.steps() - 1 - phase / C::kStages;  // -1 in the last phase.
    const int stage =
        C::kStages - 1 - int(phase % C::kStages);  // Stage of the element-wise work.
    const bool new_step = stage == kLast;
    const int64_t n = t < 0 ? 0 : rows_.alive(t),
                  multiplied = new_step ? rows_.alive(t + 1) : n;
    if (C::kHasC && (stage == 0 || t < 0)) BeginC(worker, t);
    const float* operand = operands_[(phase + 1) % 2].get();
    const int from = Following(stage);  // The stage whose cotangents are multiplied.
    const int64_t size = OperandSize(from);
    for (const PackedPanel& packed : worker.stages[stage]) {
      const int vectors = packed.panel.count;
      // Cells that work by row keep the products of all units, because their
      // element-wise work needs all units.
      const int64_t width = C::kByRow ? cell_.padded(stage) : vectors * kLanes;
      float* products = worker.products.get();
      if (C::kByRow) products += packed.panel.first * kLanes;
      Multiply(multiplied, vectors, {operand, stride_}, packed.transposed, size,
               {kZeros, 0}, {products, width}, worker.far);
      for (int64_t r = 0; r < multiplied; r++) {
        for (int w = 0; w < vectors; w++) {
          Pull(worker, phase, stage, t, r, packed.panel.first + w,
               Load(products + r * width + w * kLanes));
        }
      }
    }
    // Step t is the last step of these rows.
    const VectorRange& of_h = worker.ranges[kLast];
    for (int64_t v = of_h.first; multiplied < n && v < of_h.end; v++) {
      for (int64_t r = multiplied; r < n; r++) {
        const int64_t at = rows_[r] * sizes_.outputs + v * kLanes;
        PullStep(worker, phase, t, r, v,
                 Load(entry_.ct_last_h + at, Valid(sizes_.outputs, v)));
      }
    }
    if constexpr (C::kByRow)
      for (int64_t r = 0; r < n; r++) PullRow(worker, phase, t, r);
  }

 private:
  static constexpr int kLast = Stages<C>::kLast;
  struct PackedPanel {
    Panel panel;
    float* transposed;  // Packed state matrix of the following stage.
  };
  struct Worker {
    // The range of each stage; `carried` covers the first range.
    std::vector<VectorRange> ranges;
    Carried<C::kCarried> carried;
    Buffer memory, products;
    std::vector<PackedPanel> stages[C::kStages];
    bool far;  // Whether the panels are far.
  };

  // The stage after this one. After the last stage comes the next step's first stage.
  static int Following(int stage) { return (stage + 1) % C::kStages; }

  // The number of floats per row of a stage's cotangents as the operand of a product.
  int64_t OperandSize(int stage) const {
    return C::kStage[stage].state * cell_.padded(stage);
  }
  int64_t LongestOperand() const {
    return std::max(OperandSize(0), OperandSize(kLast));
  }

  // Allocates before other threads start, so that the caller receives any exception.
  void AllocateMemory(Worker& worker) {
    int64_t floats = 0;
    for (int stage = 0; stage < C::kStages; stage++) {
      floats += worker.ranges[stage].size() * kLanes * OperandSize(Following(stage));
    }
    worker.far = AreFar(floats);
    worker.memory = Allocate(floats);
    const int64_t width = C::kByRow ? cell_.padded(0) : kMaxVectors * kLanes;
    worker.products = Allocate(rows_.count() * width);
    float* next = worker.memory.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const Panel& panel : worker.ranges[stage].Panels(kMaxVectors)) {
        worker.stages[stage].push_back({panel, next});
        next += panel.count * kLanes * OperandSize(Following(stage));
      }
    }
  }

  // Prepares a worker before its first phase.
  void Prepare(Worker& worker) {
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const PackedPanel& packed : worker.stages[stage])
        Transpose(Following(stage), packed.panel, packed.transposed);
    }
    const int64_t workers = workers_.size();
    for (int64_t r = &worker - workers_.data(); C::kStages > 1 && r < rows_.count();
         r += workers)
      rows_.ZeroDead(r, entry_.operand, sizes_.units);
    rows_.Keep(worker.ranges[kLast], sizes_.outputs, entry_.ct_last_h, entry_.ct_h);
    if (!C::kHasC) return;
    rows_.Keep(worker.ranges[0], sizes_.units, entry_.ct_last_c, entry_.ct_c);
    if (!entry_.ct_elementwise) return;
    for (int64_t v = worker.ranges[0].first; v < worker.ranges[0].end; v++) {
      for (int64_t r = rows_.alive(0); r < rows_.count(); r++) {
        for (int k = 0; k + 1 < C::kCarried; k++)
          Store(Elementwise(k, r, v), Vec{}, Valid(sizes_.units, v));
      }
    }
  }

  // Transposes and packs the panel's part of the stage's state matrix. The matrix rows
  // of the panel's units become columns. The matrix columns become rows, ordered by
  // vector, gate and lane, as in `operands_`.
  void Transpose(int stage, const Panel& panel, float* to) {
    const int64_t units = cell_.units(stage), width = panel.count * kLanes;
    const int64_t row = panel.first * kLanes;
    const int64_t count = std::min(width, cell_.rows(stage) - row);
    const int gates = C::kStage[stage].state, first = cell_.FirstOfState(stage);
    for (int64_t v = 0; v * kLanes < units; v++) {
      for (int g = 0; g < gates; g++, to += kLanes * width) {
        const int64_t columns = cell_.Columns(stage, first + g);
        const float* from =
            cell_.ColumnsOf(entry_.kernel, stage, first + g, true, row) + v * kLanes;
        const int valid = Valid(units, v);
        PackTransposed({from, columns}, count, valid, width, to);
        std::memset(to + valid * width, 0, sizeof(float) * (kLanes - valid) * width);
      }
    }
  }

  // Updates the cotangents of c before step t runs backward, from the cotangents of the
  // state before step t + 1 to the cotangents of the state after step t.
  void BeginC(Worker& worker, int64_t t) {
    const int64_t units = sizes_.units, before = rows_.alive(t + 1);
    for (int64_t v = worker.ranges[0].first; v < worker.ranges[0].end; v++) {
      const int valid = Valid(units, v);
      for (int64_t r = 0; entry_.resets && r < before; r++) {
        float* carried = worker.carried(v, r);
        if (AddReset(entry_.ct_reset_c, units, t, r, v, Load(carried)))
          Store(carried, Vec{});
      }
      for (int64_t r = 0; t < 0 && r < before; r++) EndC(worker, r, v);
      if (t < 0) continue;
      for (int64_t r = before; r < rows_.alive(t); r++) {
        float* carried = worker.carried(v, r);
        const int64_t at = rows_[r] * units + v * kLanes;
        Store(carried, Load(entry_.ct_last_c + at, valid));
        for (int k = 1; k < C::kCarried; k++) Store(carried + k * kLanes, Vec{});
      }
      for (int64_t r = 0; entry_.ct_new_c && r < rows_.alive(t); r++) {
        float* carried = worker.carried(v, r);
        const int64_t at = rows_.At(r, t) * units + v * kLanes;
        Store(carried, Load(carried) + Load(entry_.ct_new_c + at, valid));
      }
    }
  }

  // Stores row r's cotangents of the initial c and the element-wise parameters.
  void EndC(Worker& worker, int64_t r, int64_t v) {
    const int valid = Valid(sizes_.units, v);
    const float* carried = worker.carried(v, r);
    Store(entry_.ct_c + rows_[r] * sizes_.units + v * kLanes, Load(carried), valid);
    for (int k = 0; entry_.ct_elementwise && k + 1 < C::kCarried; k++)
      Store(Elementwise(k, r, v), Load(carried + (k + 1) * kLanes), valid);
  }

  // If row r is reset at step t + 1, adds `cotangent` to the cotangent of its reset
  // state and returns true. Otherwise, returns false.
  bool AddReset(float* ct_reset, int64_t units, int64_t t, int64_t r, int64_t v,
                  Vec cotangent) {
    if (!entry_.resets || !entry_.resets[rows_.At(r, t + 1)]) return false;
    const int valid = Valid(units, v);
    float* to = ct_reset + rows_[r] * units + v * kLanes;
    Store(to, Load(to, valid) + cotangent, valid);
    return true;
  }

  // Processes a product's result for one vector of row r.
  void Pull(Worker& worker, int64_t phase, int stage, int64_t t, int64_t r, int64_t v,
            Vec product) {
    if constexpr (C::kStages > 1) {
      if (stage == 0) return PullStage(worker, phase, t, r, v, product);
    }
    // `product` and the carried values are cotangents of the state before step t + 1.
    Vec ct_h = C::kHasC ? product : product + Load(worker.carried(v, r));
    if (AddReset(entry_.ct_reset_h, sizes_.outputs, t, r, v, ct_h)) ct_h = Vec{};
    if (t >= 0) return PullStep(worker, phase, t, r, v, ct_h);
    const int64_t at = rows_[r] * sizes_.outputs + v * kLanes;
    Store(entry_.ct_h + at, ct_h, Valid(sizes_.outputs, v));
  }

  // Runs the last stage of step t backward, given the cotangent of the state after step
  // t.
  void PullStep(Worker& worker, int64_t phase, int64_t t, int64_t r, int64_t v,
                Vec ct_h) {
    const int valid = Valid(sizes_.outputs, v);
    const int64_t at = rows_.At(r, t) * sizes_.outputs + v * kLanes;
    ct_h += Load(entry_.ct_outputs + at, valid);
    if constexpr (C::kByRow)  // PullRow reads ct_h from `products`.
      return Store(&worker.products[r * cell_.padded(0) + v * kLanes], ct_h);
    Vec z[4];
    int count = 0;
    for (int s = C::kPullsFrom; s < C::kStages; s++) {
      for (int g = 0; g < C::kStage[s].gates; g++)
        z[count++] =
            Load(entry_.zs[ProductNumber(s, g)] + GateAt(s, g, r, t, v), valid);
    }
    // The last stage of a projected LSTM does not read c, which can differ in size from
    // h.
    constexpr bool reads_c = C::kHasC && C::kStages == 1;
    const Vec state = Load(reads_c ? entry_.saved_c + at : H(r, t, v), valid);
    Prefetch(reads_c, r, t - 1, v);
    float* carried = C::kHasC && C::kStages > 1 ? nullptr : worker.carried(v, r);
    Vec ct_zs[4];
    C::PullStep(z, state, ct_h, carried, Besides<C>(entry_.settings, sizes_, kLast, v),
                ct_zs);
    Write(phase, kLast, t, r, v, ct_zs);
  }

  // Runs the first stage of step t backward, given the cotangent of the second stage's
  // operand.
  void PullStage(Worker& worker, int64_t phase, int64_t t, int64_t r, int64_t v,
                 Vec ct_operand) {
    const int valid = Valid(sizes_.units, v);
    const int64_t at = rows_.At(r, t) * sizes_.units + v * kLanes;
    const Vec state = Load(C::kHasC ? entry_.saved_c + at : H(r, t, v), valid);
    Vec z[4], ct_zs[4];
    for (int g = 0; g < C::kStage[0].gates; g++)
      z[g] = Load(entry_.zs[ProductNumber(0, g)] + GateAt(0, g, r, t, v), valid);
    const Vec operand = C::PullStage(z, state, ct_operand, worker.carried(v, r),
                                     Besides<C>(entry_.settings, sizes_, 0, v), ct_zs);
    Store(entry_.operand + at, operand, valid);
    Write(phase, 0, t, r, v, ct_zs);
  }

  // Runs step t of row r backward, once the state's cotangents are known for all units.
  void PullRow(Worker& worker, int64_t phase, int64_t t, int64_t r) {
    const int64_t vectors = worker.ranges[0].end;
    for (int64_t v = 0; v < vectors; v++) {
      const int valid = Valid(sizes_.units, v);
      const int64_t at = rows_.At(r, t) * sizes_.units + v * kLanes;
      for (int g = 0; g < C::kStage[0].gates; g++)
        Store(row_.z(g) + v * kLanes,
              Load(entry_.zs[0] + GateAt(0, g, r, t, v), valid));
      Store(row_.c() + v * kLanes, Load(entry_.saved_c + at, valid));
    }
    row_.Step();
    row_.Pull(&worker.products[r * cell_.padded(0)],
              [&](int64_t v) { return worker.carried(v, r); });
    for (int64_t v = 0; v < vectors; v++) {
      Vec ct_zs[4];
      for (int g = 0; g < C::kStage[0].gates; g++)
        ct_zs[g] = Load(row_.ct_z(g) + v * kLanes);
      Write(phase, 0, t, r, v, ct_zs);
    }
  }

  // Prefetches the values that step t reads, because the hardware does not predict
  // their addresses.
  void Prefetch(bool reads_c, int64_t r, int64_t t, int64_t v) const {
    if (t < 0) return;
    for (int s = C::kPullsFrom; s < C::kStages; s++) {
      for (int g = 0; g < C::kStage[s].gates; g++)
        __builtin_prefetch(entry_.zs[ProductNumber(s, g)] + GateAt(s, g, r, t, v));
    }
    const int64_t at = rows_.At(r, t) * sizes_.outputs + v * kLanes;
    __builtin_prefetch(reads_c ? entry_.saved_c + at : H(r, t, v));
    __builtin_prefetch(entry_.ct_outputs + at);
  }

  // Vector v of row r's h before step t, after any reset.
  const float* H(int64_t r, int64_t t, int64_t v) const {
    const int64_t size = sizes_.outputs;
    if (entry_.saved_h) return entry_.saved_h + rows_.At(r, t) * size + v * kLanes;
    if (t == 0) return entry_.h + rows_[r] * size + v * kLanes;
    return entry_.outputs + rows_.At(r, t - 1) * size + v * kLanes;
  }

  void Write(int64_t phase, int stage, int64_t t, int64_t r, int64_t v,
             const Vec* ct_zs) {
    const int first = cell_.FirstOfState(stage), gates = C::kStage[stage].state;
    float* shared = &operands_[phase % 2][r * stride_ + v * gates * kLanes];
    for (int g = 0; g < gates; g++) Store(shared + g * kLanes, ct_zs[first + g]);
    for (int g = 0; g < C::kStage[stage].gates; g++)
      Store(entry_.ct_zs[ProductNumber(stage, g)] + GateAt(stage, g, r, t, v), ct_zs[g],
            Valid(cell_.units(stage), v));
  }

  static int ProductNumber(int stage, int g) {
    return C::kStage[stage].gate[g].product;
  }
  // The offset of a gate's vector v.
  int64_t GateAt(int stage, int g, int64_t r, int64_t t, int64_t v) const {
    return cell_.GateAt(stage, g, rows_.At(r, t)) + v * kLanes;
  }
  float* Elementwise(int k, int64_t r, int64_t v) const {
    return entry_.ct_elementwise + (rows_[r] * (C::kCarried - 1) + k) * sizes_.units +
           v * kLanes;
  }

  const Backward& entry_;
  const Sizes sizes_;
  const Stages<C> cell_;
  const Rows rows_;
  const int64_t stride_;
  Buffer operands_[2];
  std::vector<Worker> workers_;
  typename C::Row row_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_BACKWARD_H_
