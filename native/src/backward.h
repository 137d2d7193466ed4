// The backward loop, for every cell: the cotangents of the products and of the states.
#ifndef JAXRNN_BACKWARD_H_
#define JAXRNN_BACKWARD_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "carried.h"
#include "loops.h"
#include "product.h"
#include "rows.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Runs C over all steps of a group of rows, the last one first. Each slot has some of
// the units. A phase multiplies the cotangents of the products that the phase before
// wrote by the transposed matrix of their stage, and does the elementwise work of the
// stage before that one: of the last stage of the step before, after the first stage.
// The last phase only multiplies. The cotangents of restart states are added to.
template <typename C>
class BackwardLoop {
 public:
  BackwardLoop(const Backward& call, Group group, int64_t slots)
      : call_(call),
        sizes_(call.sizes),
        rows_(sizes_, call.lengths, group),
        stride_(Stride(kMostGates * Padded(sizes_.units))) {
    for (Buffer& operand : operands_) operand = Allocate(rows_.count() * stride_);
    for (int64_t s = 0; s < slots; s++) {
      const Share share(sizes_.units, s, slots);
      slots_.push_back({share, Carried<2>(share, rows_.count())});
      AllocateMemory(slots_.back());
    }
  }

  int64_t phases() const { return sizes_.time * C::kStages + 1; }

  void Run(int64_t slot_number, int64_t phase) {
    Slot& slot = slots_[slot_number];
    if (phase == 0) Prepare(slot);
    const int64_t t = sizes_.time - 1 - phase / C::kStages;  // -1 in the last phase.
    const int stage =
        C::kStages - 1 - int(phase % C::kStages);  // Whose elementwise work it does.
    const int from =
        (stage + 1) % C::kStages;  // The stage whose cotangents are multiplied.
    const bool new_step = stage == C::kStages - 1;
    const int64_t n = t < 0 ? 0 : rows_.alive(t),
                  multiplied = new_step ? rows_.alive(t + 1) : n;
    const float* operand = operands_[(phase + 1) % 2].get();
    const int64_t size = C::kGates[from] * Padded(sizes_.units);
    for (const PackedPanel& packed : slot.stages[from]) {
      const int vectors = packed.panel.count;
      const int64_t width = vectors * kLanes;
      float* products = slot.products.get();
      Multiply(multiplied, vectors, {operand, stride_}, packed.transposed, size,
               {kZeros, 0}, {products, width});
      for (int64_t r = 0; r < multiplied; r++) {
        for (int w = 0; w < vectors; w++) {
          Pull(slot, phase, stage, t, r, packed.panel.first + w,
               Load(products + r * width + w * kLanes));
        }
      }
    }
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      // Rows whose last step this is.
      for (int64_t r = multiplied; r < n; r++) {
        const int valid = Valid(sizes_.units, v);
        const int64_t at = rows_[r] * sizes_.units + v * kLanes;
        float* carried = slot.carried(v, r);
        Store(carried, C::kHasC ? Load(call_.c_last_c + at, valid) : Vec{});
        PullStep(slot, phase, stage, t, r, v, Load(call_.c_last_h + at, valid));
      }
      if (t >= 0 && new_step) ZeroDead(v, t);
    }
  }

 private:
  static constexpr int kMostGates = C::kGates[0];
  struct PackedPanel {
    Panel panel;
    float* transposed;  // Of the matrix of the state.
  };
  struct Slot {
    Share share;
    Carried<2> carried;
    Buffer memory, products;
    std::vector<PackedPanel> stages[C::kStages];
  };

  // Before other threads begin, so that an error is one of the caller's.
  void AllocateMemory(Slot& slot) {
    const int64_t width = slot.share.size() * kLanes, padded = Padded(sizes_.units);
    int64_t floats = 0;
    for (int gates : C::kGates) floats += width * gates * padded;
    slot.memory = Allocate(floats);
    slot.products = Allocate(rows_.count() * kMaxVectors * kLanes);
    float* next = slot.memory.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const Panel& panel : slot.share.Panels(kMaxVectors)) {
        slot.stages[stage].push_back({panel, next});
        next += panel.count * kLanes * C::kGates[stage] * padded;
      }
    }
  }

  // What a slot does before the last step.
  void Prepare(Slot& slot) {
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const PackedPanel& packed : slot.stages[stage])
        Transpose(stage, packed.panel, packed.transposed);
    }
    const int64_t units = sizes_.units;
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      const size_t bytes = sizeof(float) * Valid(units, v);
      for (int64_t r = rows_.alive(0); r < rows_.count(); r++) {
        const int64_t at = rows_[r] * units + v * kLanes;
        std::memcpy(call_.c_h + at, call_.c_last_h + at, bytes);
        if (C::kHasC) std::memcpy(call_.c_c + at, call_.c_last_c + at, bytes);
      }
    }
  }

  // Packs the rows of a panel's units of the matrix [units, C] as columns; the columns
  // of the matrix in the order of the shared buffers: by vector, gate and lane.
  void Transpose(int stage, const Panel& panel, float* to) {
    const int64_t units = sizes_.units, columns = C::kGates[stage] * units;
    const int64_t padded = Padded(units), width = panel.count * kLanes;
    const float* matrix = call_.w_state[stage];
    std::memset(to, 0, sizeof(float) * width * C::kGates[stage] * padded);
    for (int64_t lane = 0; lane < width; lane++) {
      const int64_t unit = panel.first * kLanes + lane;
      if (unit >= units) break;
      for (int g = 0; g < C::kGates[stage]; g++) {
        const float* from = matrix + unit * columns + g * units;
        for (int64_t u = 0; u < units; u++) {
          const int64_t k = (u / kLanes * C::kGates[stage] + g) * kLanes + u % kLanes;
          to[k * width + lane] = from[u];
        }
      }
    }
  }

  // Continues with what a product gave for a vector of units of row r.
  void Pull(Slot& slot, int64_t phase, int stage, int64_t t, int64_t r, int64_t v,
            Vec product) {
    if (stage < C::kStages - 1) {
      return PullStage(slot, phase, t, r, v, product);
    }
    // `product` and what is carried belong to the state before step t + 1.
    const int valid = Valid(sizes_.units, v);
    const int64_t unit = v * kLanes;
    float* carried = slot.carried(v, r);
    Vec c_h = C::kHasC ? product : product + Load(carried);
    const int32_t sequence = call_.starts ? call_.starts[rows_.At(r, t + 1)] : -1;
    if (sequence >= 0) {
      float* to = call_.c_restart_h + sequence * sizes_.units + unit;
      Store(to, Load(to, valid) + c_h, valid);
      c_h = Vec{};
      if (C::kHasC) {
        to = call_.c_restart_c + sequence * sizes_.units + unit;
        Store(to, Load(to, valid) + Load(carried), valid);
        Store(carried, Vec{});
      }
    }
    if (t >= 0) return PullStep(slot, phase, stage, t, r, v, c_h);
    const int64_t at = rows_[r] * sizes_.units + unit;
    Store(call_.c_h + at, c_h, valid);
    if (C::kHasC) Store(call_.c_c + at, Load(carried), valid);
  }

  // The last stage of step t, from the cotangent of the state after it.
  void PullStep(Slot& slot, int64_t phase, int stage, int64_t t, int64_t r, int64_t v,
                Vec c_h) {
    const int valid = Valid(sizes_.units, v);
    const int64_t unit = v * kLanes, at = rows_.At(r, t) * sizes_.units + unit;
    float* carried = slot.carried(v, r);
    c_h += Load(call_.c_outputs + at, valid);
    if (call_.c_new_c) Store(carried, Load(carried) + Load(call_.c_new_c + at, valid));
    Vec z[4];
    int count = 0;
    for (int s = 0; s < C::kStages; s++) {
      for (int g = 0; g < C::kGates[s]; g++)
        z[count++] = Load(call_.zs[s] + GateAt(s, g, r, t) + unit, valid);
    }
    const Vec state = Load((C::kHasC ? call_.saved_c : call_.saved_h) + at, valid);
    Prefetch(r, t - 1, unit);
    Vec c_zs[4];
    const Vec operand = C::PullStep(z, state, c_h, carried, call_.forget_bias, c_zs);
    if (C::kStages > 1) Store(call_.operand + at, operand, valid);
    Write(phase, stage, t, r, v, c_zs);
  }

  // The first stage of step t, from the cotangent of the second one's operand.
  void PullStage(Slot& slot, int64_t phase, int64_t t, int64_t r, int64_t v,
                 Vec c_operand) {
    const int valid = Valid(sizes_.units, v);
    const int64_t unit = v * kLanes;
    const Vec h = Load(call_.saved_h + rows_.At(r, t) * sizes_.units + unit, valid);
    const Vec z = Load(call_.zs[0] + GateAt(0, 0, r, t) + unit, valid);
    Vec c_zs[4];
    C::PullStage(z, h, c_operand, slot.carried(v, r), c_zs);
    Write(phase, 0, t, r, v, c_zs);
  }

  // Begins to read what the step before needs, which the hardware does not foresee.
  void Prefetch(int64_t r, int64_t t, int64_t unit) const {
    if (t < 0) return;
    for (int s = 0; s < C::kStages; s++) {
      for (int g = 0; g < C::kGates[s]; g++)
        __builtin_prefetch(call_.zs[s] + GateAt(s, g, r, t) + unit);
    }
    const int64_t at = rows_.At(r, t) * sizes_.units + unit;
    __builtin_prefetch((C::kHasC ? call_.saved_c : call_.saved_h) + at);
    __builtin_prefetch(call_.c_outputs + at);
  }

  void Write(int64_t phase, int stage, int64_t t, int64_t r, int64_t v,
             const Vec* c_zs) {
    const int gates = C::kGates[stage];
    float* shared = &operands_[phase % 2][r * stride_ + v * gates * kLanes];
    for (int g = 0; g < gates; g++) {
      Store(shared + g * kLanes, c_zs[g]);
      Store(call_.c_zs[stage] + GateAt(stage, g, r, t) + v * kLanes, c_zs[g],
            Valid(sizes_.units, v));
    }
  }

  void ZeroDead(int64_t v, int64_t t) {
    const size_t bytes = sizeof(float) * Valid(sizes_.units, v);
    for (int64_t r = rows_.alive(t); r < rows_.count(); r++) {
      for (int s = 0; s < C::kStages; s++) {
        for (int g = 0; g < C::kGates[s]; g++)
          std::memset(call_.c_zs[s] + GateAt(s, g, r, t) + v * kLanes, 0, bytes);
      }
      if (C::kStages > 1)
        std::memset(call_.operand + rows_.At(r, t) * sizes_.units + v * kLanes, 0,
                    bytes);
    }
  }

  int64_t GateAt(int stage, int gate, int64_t r, int64_t t) const {
    return rows_.GateAt(r, t, gate, C::kGates[stage]);
  }

  const Backward& call_;
  const Sizes sizes_;
  const Rows rows_;
  const int64_t stride_;
  Buffer operands_[2];
  std::vector<Slot> slots_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_BACKWARD_H_
