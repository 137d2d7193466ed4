// The forward loop, for every cell.
#ifndef JAXRNN_FORWARD_H_
#define JAXRNN_FORWARD_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "carried.h"
#include "forward_panels.h"
#include "loops.h"
#include "product.h"
#include "rows.h"
#include "step_blocks.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Runs C over all steps of a group of rows. Each slot has some of the units. A phase is
// a stage of a step: all slots must have ended it before any begins the next, which
// multiplies what they wrote.
template <typename C>
class ForwardLoop {
 public:
  ForwardLoop(const Forward& call, Group group, int64_t slots)
      : call_(call),
        sizes_(call.sizes),
        rows_(sizes_, call.lengths, group),
        blocks_(rows_, sizes_.time),
        stride_(Stride(Padded(sizes_.units))) {
    for (Buffer& operand : operands_) operand = Allocate(rows_.count() * stride_);
    for (int64_t r = 0; r < rows_.count(); r++) {
      std::memcpy(&operands_[0][r * stride_], StartOf(call.h, call.restart_h, r, 0),
                  sizeof(float) * sizes_.units);
    }
    for (int64_t s = 0; s < slots; s++) {
      const Share share(sizes_.units, s, slots);
      slots_.push_back({share, ForwardPanels<C>(share, sizes_, blocks_.most_rows()),
                        Carried<1>(share, rows_.count())});
      if (!rows_.contiguous())
        slots_.back().x = Allocate(blocks_.most_rows() * Stride(sizes_.depth));
    }
  }

  int64_t phases() const { return sizes_.time * C::kStages; }

  void Run(int64_t slot_number, int64_t phase) {
    Slot& slot = slots_[slot_number];
    const int64_t t = phase / C::kStages, n = rows_.alive(t);
    const int stage = int(phase % C::kStages);
    if (phase == 0) Prepare(slot);
    if (stage == 0) Begin(slot, t);
    // States alternate between two buffers; a second stage has an operand of its own.
    const float* operand = operands_[stage ? 2 : t % 2].get();
    for (const ForwardPanel& packed : slot.panels[stage]) {
      const int gates = C::kGates[stage], vectors = gates * packed.panel.count;
      const int64_t width = vectors * kLanes;
      float* zs = packed.zs + blocks_.offset(t) * width;
      Multiply(n, vectors, {operand, stride_}, packed.w_state, sizes_.units,
               {zs, width}, {zs, width});
      for (int64_t r = 0; r < n; r++) {
        for (int v = 0; v < packed.panel.count; v++) {
          Update(slot, stage, t, r, packed.panel.first + v,
                 zs + r * width + v * gates * kLanes);
        }
      }
    }
  }

 private:
  struct Slot {
    Share share;
    ForwardPanels<C> panels;
    Carried<1> carried;
    Buffer x;  // The inputs of a block of steps, if they are not in one piece.
  };

  // The state from which row r starts at step t, if a sequence starts there; else
  // `otherwise`.
  const float* StartOf(const float* otherwise, const float* restarts, int64_t r,
                       int64_t t) const {
    const int32_t sequence = call_.starts ? call_.starts[rows_.At(r, t)] : -1;
    if (sequence >= 0) return restarts + sequence * sizes_.units;
    return otherwise ? otherwise + rows_[r] * sizes_.units : nullptr;
  }

  // What a slot does before the first step.
  void Prepare(Slot& slot) {
    slot.panels.Pack(call_);
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      const int valid = Valid(sizes_.units, v);
      for (int64_t r = 0; r < rows_.count(); r++) {
        const int64_t at = rows_[r] * sizes_.units + v * kLanes;
        if (C::kHasC) Store(slot.carried(v, r), Load(call_.c + at, valid));
        if (r < rows_.alive(0)) continue;
        // A row without steps keeps its state.
        std::memcpy(call_.last_h + at, call_.h + at, sizeof(float) * valid);
        if (C::kHasC)
          std::memcpy(call_.last_c + at, call_.c + at, sizeof(float) * valid);
      }
    }
  }

  // What a slot does before the products of step t.
  void Begin(Slot& slot, int64_t t) {
    if (blocks_.end(t)) MultiplyInputs(slot, t, blocks_.end(t));
    const int64_t n = rows_.alive(t);
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      if (C::kHasC && call_.starts) {
        for (int64_t r = 0; r < n; r++) RestartC(slot, t, r, v);
      }
      if (call_.saved_h) {
        for (int64_t r = 0; r < n; r++) SaveState(slot, t, r, v);
      }
      for (int64_t r = n; r < rows_.count(); r++) ZeroDead(t, r, v);
    }
  }

  // The h of a sequence that starts was written at the end of the step before.
  void RestartC(Slot& slot, int64_t t, int64_t r, int64_t v) {
    const float* start = StartOf(nullptr, call_.restart_c, r, t);
    if (!start) return;
    Store(slot.carried(v, r), Load(start + v * kLanes, Valid(sizes_.units, v)));
  }

  void SaveState(Slot& slot, int64_t t, int64_t r, int64_t v) {
    const size_t bytes = sizeof(float) * Valid(sizes_.units, v);
    const int64_t unit = v * kLanes, at = rows_.At(r, t) * sizes_.units + unit;
    std::memcpy(call_.saved_h + at, &operands_[t % 2][r * stride_ + unit], bytes);
    if (C::kHasC) std::memcpy(call_.saved_c + at, slot.carried(v, r), bytes);
  }

  // What a row that is not alive has at step t.
  void ZeroDead(int64_t t, int64_t r, int64_t v) {
    const size_t bytes = sizeof(float) * Valid(sizes_.units, v);
    const int64_t unit = v * kLanes, at = rows_.At(r, t) * sizes_.units + unit;
    std::memset(call_.outputs + at, 0, bytes);
    if (call_.new_c) std::memset(call_.new_c + at, 0, bytes);
    if (!call_.saved_h) return;
    std::memset(call_.saved_h + at, 0, bytes);
    if (C::kHasC) std::memset(call_.saved_c + at, 0, bytes);
    for (int stage = 0; stage < C::kStages; stage++) {
      for (int g = 0; g < C::kGates[stage]; g++)
        std::memset(Zs(stage, g, r, t) + unit, 0, bytes);
    }
  }

  // The products of the inputs, with the bias, from step t to the end of its block.
  void MultiplyInputs(Slot& slot, int64_t t, int64_t end) {
    const int64_t depth = sizes_.depth;
    const int64_t rows = blocks_.offset(end - 1) + rows_.alive(end - 1);
    if (rows == 0) return;
    if (slot.x) GatherInputs(slot, t, end);
    const In x = slot.x ? In{slot.x.get(), Stride(depth)}
                        : In{call_.x + rows_.At(0, t) * depth, depth};
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const ForwardPanel& packed : slot.panels[stage]) {
        const int vectors = C::kGates[stage] * packed.panel.count;
        Multiply(rows, vectors, x, packed.w_inputs, depth, {packed.bias, 0},
                 {packed.zs, vectors * kLanes});
      }
    }
  }

  // Copies the inputs of a block of steps into one piece.
  void GatherInputs(Slot& slot, int64_t t, int64_t end) {
    const int64_t depth = sizes_.depth, stride = Stride(depth);
    for (; t < end; t++) {
      for (int64_t r = 0; r < rows_.alive(t); r++) {
        std::memcpy(&slot.x[(blocks_.offset(t) + r) * stride],
                    call_.x + rows_.At(r, t) * depth, sizeof(float) * depth);
      }
    }
  }

  // The elementwise work for a vector of units of row r, whose products are z.
  void Update(Slot& slot, int stage, int64_t t, int64_t r, int64_t v, const float* z) {
    const int valid = Valid(sizes_.units, v);
    const int64_t unit = v * kLanes, at = rows_.At(r, t) * sizes_.units + unit;
    Vec values[4];
    for (int g = 0; g < C::kGates[stage]; g++) {
      values[g] = Load(z + g * kLanes);
      if (call_.zs[0]) Store(Zs(stage, g, r, t) + unit, values[g], valid);
    }
    float* carried = slot.carried(v, r);
    const Vec h = Load(&operands_[t % 2][r * stride_ + unit]);
    if (stage + 1 < C::kStages) {
      Store(&operands_[2][r * stride_ + unit], C::Operand(values, h, carried));
      return;
    }
    const Vec next = C::Update(values, h, carried, call_.forget_bias);
    Store(call_.outputs + at, next, valid);
    if (call_.new_c) Store(call_.new_c + at, Load(carried), valid);
    float* next_h = &operands_[(t + 1) % 2][r * stride_ + unit];
    Store(next_h, next);
    if (r >= rows_.alive(t + 1)) {
      const int64_t last = rows_[r] * sizes_.units + unit;
      Store(call_.last_h + last, next, valid);
      if (C::kHasC) Store(call_.last_c + last, Load(carried), valid);
    } else if (const float* start = StartOf(nullptr, call_.restart_h, r, t + 1)) {
      Store(next_h, Load(start + unit, valid));
    }
  }

  float* Zs(int stage, int gate, int64_t r, int64_t t) const {
    return call_.zs[stage] + rows_.GateAt(r, t, gate, C::kGates[stage]);
  }

  const Forward& call_;
  const Sizes sizes_;
  const Rows rows_;
  const StepBlocks blocks_;
  const int64_t stride_;
  // The states, of even steps and of odd ones, and the operands of a second stage.
  Buffer operands_[3];
  std::vector<Slot> slots_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_H_
