// The forward loop of every cell.
#ifndef JAXRNN_FORWARD_H_
#define JAXRNN_FORWARD_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "carried.h"
#include "division.h"
#include "forward_panels.h"
#include "loops.h"
#include "product.h"
#include "rows.h"
#include "stages.h"
#include "step_blocks.h"
#include "stored.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Runs the cell C over all steps of a row block. Each worker processes some of the
// units. A phase is one stage of one step. All workers must finish a phase before any
// worker begins the next one, because the next phase multiplies the values that all
// workers wrote.
template <typename C>
class ForwardLoop {
 public:
  ForwardLoop(const Forward& entry, RowBlock row_block, int64_t workers)
      : entry_(entry),
        sizes_(entry.sizes),
        cell_(sizes_),
        rows_(sizes_, entry.lengths, row_block),
        far_(AreFar(cell_.MatrixFloats() / workers)),
        packs_(Packs<C>(sizes_, rows_.count(), rows_.steps(), far_)),
        blocks_(rows_, far_ ? 128 : 64),
        strides_{Stride(Padded(sizes_.outputs)), Stride(Padded(sizes_.units))},
        row_(entry.settings, sizes_.units) {
    for (int k = 0; k < 3; k++)
      operands_[k] = Allocate(rows_.count() * strides_[k / 2]);
    for (int64_t r = 0; r < rows_.count(); r++) {
      std::memcpy(&operands_[0][r * strides_[0]],
                  StartOf(entry.h, entry.reset_h, sizes_.outputs, r, 0),
                  sizeof(float) * sizes_.outputs);
      std::fill_n(operands_[0].get() + r * strides_[0] + sizes_.outputs,
                  Padded(sizes_.outputs) - sizes_.outputs, 0.0f);
    }
    for (int64_t s = 0; s < workers; s++) {
      const std::vector<VectorRange> ranges = cell_.Ranges(s, workers);
      workers_.push_back({ranges,
                          ForwardPanels<C>(ranges, sizes_, blocks_.most_rows(), packs_),
                          Carried<1>(ranges[0], rows_.count())});
      if (!rows_.contiguous())
        workers_.back().x = Allocate(blocks_.most_rows() * Stride(sizes_.depth));
    }
  }

  int64_t phases() const { return rows_.steps() * C::kStages; }

  // Everything is inlined, because a call would store the vectors of the element-wise
  // work to memory.
  [[gnu::flatten]] void Run(int64_t number, int64_t phase) {
    Worker& worker = workers_[number];
    const int64_t t = phase / C::kStages, n = rows_.alive(t);
    const int stage = int(phase % C::kStages);
    if (phase == 0) Prepare(worker);
    if (stage == 0) Begin(worker, t);
    // States alternate between two buffers. The operand of a second stage has a
    // separate buffer.
    const In operand = {operands_[stage ? 2 : t % 2].get(), strides_[stage ? 1 : 0]};
    for (const ForwardPanel& packed : worker.panels[stage]) {
      const int64_t width = C::kStage[stage].gates * packed.panel.count * kLanes;
      const Out zs = {packed.zs + blocks_.offset(t) * width, width};
      MultiplyState(packed, stage, n, operand, zs);
      for (int64_t r = 0; !C::kByRow && r < n; r++) {
        for (int v = 0; v < packed.panel.count; v++) {
          Update(worker, stage, t, r, packed.panel.first + v,
                 (zs + r).data + v * packed.of_vector, packed.of_gate);
        }
      }
    }
    for (int64_t r = 0; r < n; r++) {
      if constexpr (C::kByRow) UpdateRow(worker, t, r);
      if (entry_.zs[0]) SaveZs(worker, stage, t, r);
    }
  }

 private:
  struct Worker {
    std::vector<VectorRange> ranges;  // One for each stage.
    ForwardPanels<C> panels;
    Carried<1> carried;
    Buffer x;  // A copy of a block's inputs, if they are not contiguous.

    // The worker's vectors of c and h.
    const VectorRange& of_c() const { return ranges.front(); }
    const VectorRange& of_h() const { return ranges.back(); }
  };

  // The state from which row r starts step t: its reset state if it is reset, else its
  // state in `otherwise`, which may be null. `units` is the size of a state.
  const float* StartOf(const float* otherwise, const float* resets, int64_t units,
                       int64_t r, int64_t t) const {
    if (entry_.resets && entry_.resets[rows_.At(r, t)]) otherwise = resets;
    return otherwise ? otherwise + rows_[r] * units : nullptr;
  }

  // Prepares a worker before the first step.
  void Prepare(Worker& worker) {
    worker.panels.Pack(entry_);
    const int64_t workers = workers_.size();
    for (int64_t r = &worker - workers_.data(); r < rows_.count(); r += workers)
      ZeroDead(r);
    rows_.Keep(worker.of_h(), sizes_.outputs, entry_.h, entry_.last_h);
    if (!C::kHasC) return;
    rows_.Keep(worker.of_c(), sizes_.units, entry_.c, entry_.last_c);
    for (int64_t v = worker.of_c().first; v < worker.of_c().end; v++) {
      for (int64_t r = 0; r < rows_.alive(0); r++) {
        const int64_t at = rows_[r] * sizes_.units + v * kLanes;
        Store(worker.carried(v, r), Load(entry_.c + at, Valid(sizes_.units, v)));
      }
    }
  }

  // Writes zeros after row r's last step. Workers divide this work by rows, not by
  // units.
  void ZeroDead(int64_t r) const {
    rows_.ZeroDead(r, entry_.outputs, sizes_.outputs);
    rows_.ZeroDead(r, entry_.new_c, sizes_.units);
    rows_.ZeroDead(r, entry_.saved_h, sizes_.outputs);
    rows_.ZeroDead(r, entry_.saved_c, sizes_.units);
    for (int k = 0; k < Products(entry_.cell); k++)
      rows_.ZeroDead(r, entry_.zs[k], sizes_.Columns(entry_.cell, k));
  }

  // Prepares a worker for the products of step t.
  void Begin(Worker& worker, int64_t t) {
    if (blocks_.end(t)) MultiplyInputs(worker, t, blocks_.end(t));
    const int64_t n = rows_.alive(t);
    for (int64_t v = worker.of_h().first; entry_.saved_h && v < worker.of_h().end;
         v++) {
      for (int64_t r = 0; r < n; r++) {
        std::memcpy(entry_.saved_h + At(sizes_.outputs, r, t, v),
                    &operands_[t % 2][r * strides_[0] + v * kLanes],
                    sizeof(float) * Valid(sizes_.outputs, v));
      }
    }
    for (int64_t v = worker.of_c().first; C::kHasC && v < worker.of_c().end; v++)
      BeginC(worker, t, v);
  }

  // Prepares c for step t. For h, EndH of the previous step did this.
  void BeginC(Worker& worker, int64_t t, int64_t v) {
    const int valid = Valid(sizes_.units, v);
    const int64_t n = rows_.alive(t);
    for (int64_t r = 0; entry_.resets && r < n; r++) {
      if (const float* start = StartOf(nullptr, entry_.reset_c, sizes_.units, r, t))
        Store(worker.carried(v, r), Load(start + v * kLanes, valid));
    }
    for (int64_t r = 0; entry_.saved_c && r < n; r++) {
      Store(entry_.saved_c + At(sizes_.units, r, t, v), Load(worker.carried(v, r)),
            valid);
    }
  }

  // Adds the products of the state, or of the stage's operand, to zs.
  void MultiplyState(const ForwardPanel& packed, int stage, int64_t n, In operand,
                     Out zs) const {
    const int gates = C::kStage[stage].gates, first = cell_.FirstOfState(stage);
    const int64_t rows = cell_.rows(stage);
    zs.data += first * packed.of_gate;
    if (packs_)
      return Multiply(n, C::kStage[stage].state * packed.panel.count, operand,
                      packed.w_state, rows, {zs.data, zs.stride}, zs, far_);
    for (int g = first; g < gates; g++, zs.data += packed.of_gate)
      MultiplyStored(n, packed.panel.count, operand, Stored(packed, stage, g, true),
                     rows, zs);
  }

  // The columns of a gate in a product's kernel that is not packed.
  In Stored(const ForwardPanel& packed, int stage, int g, bool of_state) const {
    return {cell_.ColumnsOf(entry_.kernel, stage, g, of_state, 0) +
                packed.panel.first * kLanes,
            cell_.Columns(stage, g)};
  }

  // Multiplies the inputs and adds the bias, from step t to the end of its block.
  void MultiplyInputs(Worker& worker, int64_t t, int64_t end) {
    const int64_t depth = sizes_.depth;
    const int64_t rows = blocks_.offset(end - 1) + rows_.alive(end - 1);
    if (rows == 0) return;
    if (worker.x) GatherInputs(worker, t, end);
    const In x = worker.x ? In{worker.x.get(), Stride(depth)}
                          : In{entry_.x + rows_.At(0, t) * depth, depth};
    for (int stage = 0; stage < C::kStages; stage++) {
      const int gates = C::kStage[stage].gates, inputs = C::kStage[stage].inputs;
      for (const ForwardPanel& packed : worker.panels[stage]) {
        const int64_t width = gates * packed.panel.count * kLanes;
        const Out zs = {packed.zs, width};
        const int64_t multiplied = packs_ ? inputs * packed.panel.count * kLanes : 0;
        if (packs_ && inputs > 0)
          Multiply(rows, inputs * packed.panel.count, x, packed.w_inputs, depth,
                   {packed.bias, 0}, zs, far_);
        for (int64_t r = 0; multiplied < width && r < rows; r++) {
          for (int64_t k = multiplied; k < width; k += kLanes)
            Store((zs + r).data + k, Load(packed.bias + k));
        }
        for (int g = 0; !packs_ && g < inputs; g++)
          MultiplyStored(rows, packed.panel.count, x, Stored(packed, stage, g, false),
                         depth, {zs.data + g * packed.of_gate, width});
      }
    }
  }

  // Copies the inputs of a block of steps into contiguous memory.
  void GatherInputs(Worker& worker, int64_t t, int64_t end) {
    const int64_t depth = sizes_.depth, stride = Stride(depth);
    for (; t < end; t++) {
      for (int64_t r = 0; r < rows_.alive(t); r++) {
        std::memcpy(&worker.x[(blocks_.offset(t) + r) * stride],
                    entry_.x + rows_.At(r, t) * depth, sizeof(float) * depth);
      }
    }
  }

  // Does the element-wise work for one vector of row r. z holds the vector's products,
  // one gate after another, `of_gate` floats apart.
  void Update(Worker& worker, int stage, int64_t t, int64_t r, int64_t v,
              const float* z, int64_t of_gate) {
    Vec values[4];
    for (int g = 0; g < C::kStage[stage].gates; g++) values[g] = Load(z + g * of_gate);
    const SettingsVec besides = Besides<C>(entry_.settings, sizes_, stage, v);
    const auto state = [&] {
      return Load(&operands_[t % 2][r * strides_[0] + v * kLanes]);
    };
    if constexpr (C::kStages > 1) {
      if (stage == 0) {
        float* carried = worker.carried(v, r);
        const Vec h = C::kHasC ? Vec{} : state();
        Store(&operands_[2][r * strides_[1] + v * kLanes],
              C::Operand(values, h, carried, besides));
        if (C::kHasC) EndC(t, r, v, carried);
        return;
      }
    }
    // The last stage of a projected LSTM does not use c, which can differ in size from
    // h.
    constexpr bool carries = !C::kHasC || C::kStages == 1;
    float* carried = carries ? worker.carried(v, r) : nullptr;
    const Vec next = C::Update(values, state(), carried, besides);
    if (C::kHasC && C::kStages == 1) EndC(t, r, v, carried);
    EndH(t, r, v, next);
  }

  // Saves row r's products. Writing whole rows is faster than writing a panel's part of
  // every row.
  void SaveZs(const Worker& worker, int stage, int64_t t, int64_t r) const {
    const int gates = C::kStage[stage].gates;
    const int64_t row = blocks_.offset(t) + r;
    for (int g = 0; g < gates; g++) {
      float* to = Zs(stage, g, r, t);
      for (const ForwardPanel& packed : worker.panels[stage]) {
        const Panel& panel = packed.panel;
        const float* z =
            packed.zs + row * panel.count * gates * kLanes + g * packed.of_gate;
        for (int64_t v = panel.first; v < panel.first + panel.count; v++) {
          Store(to + v * kLanes, Load(z), Valid(cell_.units(stage), v));
          z += packed.of_vector;
        }
      }
    }
  }

  // Does the element-wise work of row r. The worker processes all units of the row.
  void UpdateRow(Worker& worker, int64_t t, int64_t r) {
    for (const ForwardPanel& packed : worker.panels[0]) {
      const Panel& panel = packed.panel;
      const int64_t row = blocks_.offset(t) + r;
      const float* z = packed.zs + row * panel.count * C::kStage[0].gates * kLanes;
      for (int64_t v = panel.first; v < panel.first + panel.count; v++) {
        for (int g = 0; g < C::kStage[0].gates; g++, z += kLanes)
          Store(row_.z(g) + v * kLanes, Load(z));
      }
    }
    for (int64_t v = 0; v < worker.of_c().end; v++)
      Store(row_.c() + v * kLanes, Load(worker.carried(v, r)));
    row_.Step();
    for (int64_t v = 0; v < worker.of_c().end; v++) {
      Store(worker.carried(v, r), Load(row_.next_c() + v * kLanes));
      EndC(t, r, v, worker.carried(v, r));
      EndH(t, r, v, Load(row_.h() + v * kLanes));
    }
  }

  // Stores c after step t.
  void EndC(int64_t t, int64_t r, int64_t v, const float* c) {
    const int valid = Valid(sizes_.units, v);
    if (entry_.new_c) Store(entry_.new_c + At(sizes_.units, r, t, v), Load(c), valid);
    if (r >= rows_.alive(t + 1))
      Store(entry_.last_c + rows_[r] * sizes_.units + v * kLanes, Load(c), valid);
  }

  // Stores h after step t, and the h from which the next step starts.
  void EndH(int64_t t, int64_t r, int64_t v, Vec next) {
    const int64_t units = sizes_.outputs;
    const int valid = Valid(units, v);
    Store(entry_.outputs + At(units, r, t, v), next, valid);
    float* next_h = &operands_[(t + 1) % 2][r * strides_[0] + v * kLanes];
    Store(next_h, next);
    if (r >= rows_.alive(t + 1)) {
      Store(entry_.last_h + rows_[r] * units + v * kLanes, next, valid);
    } else if (const float* start =
                   StartOf(nullptr, entry_.reset_h, units, r, t + 1)) {
      Store(next_h, Load(start + v * kLanes, valid));
    }
  }

  // The offset of vector v of row r at step t, in a sequence with this many units.
  int64_t At(int64_t units, int64_t r, int64_t t, int64_t v) const {
    return rows_.At(r, t) * units + v * kLanes;
  }

  float* Zs(int stage, int gate, int64_t r, int64_t t) const {
    return entry_.zs[C::kStage[stage].gate[gate].product] +
           cell_.GateAt(stage, gate, rows_.At(r, t));
  }

  const Forward& entry_;
  const Sizes sizes_;
  const Stages<C> cell_;
  const Rows rows_;
  const bool far_;  // Whether a worker's matrices are far.
  const bool packs_;
  const StepBlocks blocks_;
  const int64_t strides_[2];  // For states, and for operands of a second stage.
  // The states of even steps, the states of odd steps, and a second stage's operands.
  Buffer operands_[3];
  std::vector<Worker> workers_;
  typename C::Row row_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_H_
