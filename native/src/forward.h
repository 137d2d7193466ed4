// The forward loop, for every cell.
#ifndef JAXRNN_FORWARD_H_
#define JAXRNN_FORWARD_H_

#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// The products of the inputs are computed for a block of steps at once, of about so
// many rows: enough for full speed, few enough to stay in the cache.
constexpr int64_t kBlockRows = 64;

// Runs C over all steps. Each slot has some of the units. A phase is a stage of a step:
// all slots must have ended it before any begins the next, which multiplies what they
// wrote.
template <typename C>
class ForwardLoop {
 public:
  ForwardLoop(const Forward& call, int64_t slots)
      : call_(call),
        sizes_(call.sizes),
        rows_(sizes_, call.lengths),
        stride_(Stride(Padded(sizes_.units))) {
    for (Buffer& operand : operands_) operand = Allocate(sizes_.batch * stride_);
    PlanBlocks();
    for (int64_t r = 0; r < sizes_.batch; r++) {
      std::memcpy(&operands_[0][r * stride_], StartOf(call.h, call.restart_h, r, 0),
                  sizeof(float) * sizes_.units);
    }
    for (int64_t s = 0; s < slots; s++) {
      slots_.emplace_back(sizes_.units, s, slots);
      AllocateMemory(slots_.back());
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
    for (const Work& work : slot.stages[stage]) {
      const int gates = C::kGates[stage], vectors = gates * work.panel.count;
      const int64_t width = vectors * kLanes;
      float* zs = work.zs + block_offsets_[t] * width;
      Multiply(n, vectors, {operand, stride_}, work.state, sizes_.units, {zs, width},
               {zs, width});
      for (int64_t r = 0; r < n; r++) {
        for (int w = 0; w < work.panel.count; w++) {
          Update(slot, stage, t, r, work.panel.first + w,
                 zs + r * width + w * gates * kLanes);
        }
      }
    }
  }

 private:
  // A panel of a stage: its matrices, packed, and its products for a block of steps.
  struct Work {
    Panel panel;
    float *inputs = nullptr, *state = nullptr, *bias = nullptr, *zs = nullptr;
  };
  struct Slot {
    Share share;
    Buffer memory, local, x;
    std::vector<Work> stages[C::kStages];
    Slot(int64_t units, int64_t slot, int64_t slots) : share(units, slot, slots) {}
  };

  void PlanBlocks() {
    block_offsets_.resize(sizes_.time);
    block_ends_.resize(sizes_.time);
    for (int64_t t = 0; t < sizes_.time;) {
      int64_t end = t, rows = 0;
      while (end < sizes_.time && (end == t || rows + rows_.alive(end) <= kBlockRows)) {
        block_offsets_[end] = rows;
        rows += rows_.alive(end++);
      }
      block_rows_ = std::max(block_rows_, rows);
      block_ends_[t] = end;
      t = end;
    }
  }

  // The state from which row r starts at step t, if a sequence starts there; else
  // `otherwise`.
  const float* StartOf(const float* otherwise, const float* restarts, int64_t r,
                       int64_t t) const {
    const int32_t sequence = call_.starts ? call_.starts[rows_.At(r, t)] : -1;
    if (sequence >= 0) return restarts + sequence * sizes_.units;
    return otherwise ? otherwise + rows_[r] * sizes_.units : nullptr;
  }

  // Before other threads begin, so that an error is one of the caller's.
  void AllocateMemory(Slot& slot) {
    int64_t floats = 0;
    const int64_t rows = sizes_.depth + sizes_.units + 1 + block_rows_;
    for (int gates : C::kGates) floats += slot.share.size() * gates * kLanes * rows;
    slot.memory = Allocate(floats);
    slot.local = Allocate(slot.share.size() * sizes_.batch * kLanes);
    if (!rows_.contiguous()) slot.x = Allocate(block_rows_ * Stride(sizes_.depth));
    // Arrays of one kind follow each other, as the loop reads them.
    float* next = slot.memory.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      const int gates = C::kGates[stage];
      for (const Panel& panel : slot.share.Panels(kMaxVectors / gates))
        slot.stages[stage].push_back({panel});
      const auto take = [&](float* Work::* kind, int64_t count) {
        for (Work& work : slot.stages[stage]) {
          work.*kind = next;
          next += count * gates * work.panel.count * kLanes;
        }
      };
      take(&Work::state, sizes_.units);
      take(&Work::inputs, sizes_.depth);
      take(&Work::bias, 1);
      take(&Work::zs, block_rows_);
    }
  }

  // What a slot does before the first step.
  void Prepare(Slot& slot) {
    for (int stage = 0; stage < C::kStages; stage++) {
      Pack(slot, stage, call_.w_inputs[stage], sizes_.depth, &Work::inputs);
      Pack(slot, stage, call_.w_state[stage], sizes_.units, &Work::state);
      Pack(slot, stage, call_.bias[stage], 1, &Work::bias);
    }
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      const int valid = Valid(sizes_.units, v);
      for (int64_t r = 0; r < sizes_.batch; r++) {
        const int64_t at = rows_[r] * sizes_.units + v * kLanes;
        if (C::kHasC) Store(Local(slot, v, r), Load(call_.c + at, valid));
        if (r < rows_.alive(0)) continue;
        // A row without steps keeps its state.
        std::memcpy(call_.last_h + at, call_.h + at, sizeof(float) * valid);
        if (C::kHasC)
          std::memcpy(call_.last_c + at, call_.c + at, sizeof(float) * valid);
      }
    }
  }

  // Copies a matrix [size, C] into the panels, gates of a unit side by side.
  void Pack(Slot& slot, int stage, const float* matrix, int64_t size,
            float* Work::* to) {
    const int gates = C::kGates[stage];
    for (int64_t k = 0; k < size; k++) {
      for (Work& work : slot.stages[stage]) {
        float* row = work.*to + k * gates * work.panel.count * kLanes;
        for (int w = 0; w < work.panel.count; w++) {
          const int64_t unit = (work.panel.first + w) * kLanes;
          const int valid = Valid(sizes_.units, work.panel.first + w);
          for (int g = 0; g < gates; g++) {
            Store(row + (w * gates + g) * kLanes,
                  Load(matrix + (k * gates + g) * sizes_.units + unit, valid));
          }
        }
      }
    }
  }

  // What a slot does before the products of step t.
  void Begin(Slot& slot, int64_t t) {
    if (block_ends_[t]) MultiplyInputs(slot, t, block_ends_[t]);
    const int64_t n = rows_.alive(t), units = sizes_.units;
    const float* h = operands_[t % 2].get();
    for (int64_t v = slot.share.first; v < slot.share.end; v++) {
      const int valid = Valid(units, v);
      const size_t bytes = sizeof(float) * valid;
      for (int64_t r = 0; r < n && (call_.saved_h || (C::kHasC && call_.starts)); r++) {
        const float* start =
            C::kHasC ? StartOf(nullptr, call_.restart_c, r, t) : nullptr;
        if (start) Store(Local(slot, v, r), Load(start + v * kLanes, valid));
        if (!call_.saved_h) continue;
        const int64_t at = rows_.At(r, t) * units + v * kLanes;
        std::memcpy(call_.saved_h + at, h + r * stride_ + v * kLanes, bytes);
        if (C::kHasC) std::memcpy(call_.saved_c + at, Local(slot, v, r), bytes);
      }
      for (int64_t r = n; r < sizes_.batch; r++) {
        const int64_t at = rows_.At(r, t) * units + v * kLanes;
        std::memset(call_.outputs + at, 0, bytes);
        if (call_.new_c) std::memset(call_.new_c + at, 0, bytes);
        if (!call_.saved_h) continue;
        std::memset(call_.saved_h + at, 0, bytes);
        if (C::kHasC) std::memset(call_.saved_c + at, 0, bytes);
        for (int stage = 0; stage < C::kStages; stage++) {
          for (int g = 0; g < C::kGates[stage]; g++)
            std::memset(Saved(stage, g, r, t) + v * kLanes, 0, bytes);
        }
      }
    }
  }

  // The products of the inputs, with the bias, from step t to the end of its block.
  void MultiplyInputs(Slot& slot, int64_t t, int64_t end) {
    const int64_t depth = sizes_.depth;
    int64_t rows = block_offsets_[end - 1] + rows_.alive(end - 1), stride = depth;
    const float* x = call_.x + (rows ? rows_.At(0, t) * depth : 0);
    if (slot.x) {
      stride = Stride(depth);
      for (int64_t u = t; u < end; u++) {
        for (int64_t r = 0; r < rows_.alive(u); r++) {
          std::memcpy(&slot.x[(block_offsets_[u] + r) * stride],
                      call_.x + rows_.At(r, u) * depth, sizeof(float) * depth);
        }
      }
      x = slot.x.get();
    }
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const Work& work : slot.stages[stage]) {
        const int vectors = C::kGates[stage] * work.panel.count;
        Multiply(rows, vectors, {x, stride}, work.inputs, depth, {work.bias, 0},
                 {work.zs, vectors * kLanes});
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
      if (call_.zs[0]) Store(Saved(stage, g, r, t) + unit, values[g], valid);
    }
    float* local = Local(slot, v, r);
    const Vec h = Load(&operands_[t % 2][r * stride_ + unit]);
    if (stage + 1 < C::kStages) {
      Store(&operands_[2][r * stride_ + unit], C::Operand(values, h, local));
      return;
    }
    const Vec next = C::Update(values, h, local, call_.forget_bias);
    Store(call_.outputs + at, next, valid);
    if (call_.new_c) Store(call_.new_c + at, Load(local), valid);
    float* next_h = &operands_[(t + 1) % 2][r * stride_ + unit];
    Store(next_h, next);
    if (r >= rows_.alive(t + 1)) {
      const int64_t last = rows_[r] * sizes_.units + unit;
      Store(call_.last_h + last, next, valid);
      if (C::kHasC) Store(call_.last_c + last, Load(local), valid);
    } else if (const float* start = StartOf(nullptr, call_.restart_h, r, t + 1)) {
      Store(next_h, Load(start + unit, valid));
    }
  }

  float* Saved(int stage, int gate, int64_t r, int64_t t) const {
    return call_.zs[stage] + (rows_.At(r, t) * C::kGates[stage] + gate) * sizes_.units;
  }
  // What a slot keeps of a vector of units from step to step.
  float* Local(Slot& slot, int64_t v, int64_t r) const {
    return &slot.local[((v - slot.share.first) * sizes_.batch + r) * kLanes];
  }

  const Forward& call_;
  const Sizes sizes_;
  const Rows rows_;
  const int64_t stride_;
  Buffer operands_[3];
  std::vector<Slot> slots_;
  // For each step: its first row in its block; the end of the block if it is the first.
  std::vector<int64_t> block_offsets_, block_ends_;
  int64_t block_rows_ = 0;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_H_
