// The calls from XLA: finds the arrays of a run, checks their types and sizes, runs it.
#include "xla/ffi/api/ffi.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <new>
#include <string>
#include <utility>

#include "dispatch.h"
#include "loops.h"

namespace ffi = xla::ffi;

namespace jaxrnn {
namespace {

constexpr int64_t kUnknown = -1;

// Asks for pages of 2 MiB where the memory is not in use yet: to get and clear new
// pages of 4 KiB took up to a seventh of the time of a training step.
void UseLargePages(void* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const uintptr_t start = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (start + kPage - 1) / kPage * kPage;
  const uintptr_t end = (start + bytes) / kPage * kPage;
  // Only advice: where it is not followed, nothing else changes.
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

class PoolExecutor final : public Executor {
 public:
  explicit PoolExecutor(ffi::ThreadPool& pool) : pool_(pool) {}
  int64_t threads() const override { return std::max<int64_t>(1, pool_.num_threads()); }
  void Schedule(std::function<void()> function) override {
    pool_.Schedule(std::move(function));
  }

 private:
  ffi::ThreadPool& pool_;
};

// The size of an axis: a number of blocks of a size, which is kUnknown before the first
// array that has it.
struct Axis {
  int64_t& size;
  int64_t blocks = 1;
};
using Axes = std::initializer_list<Axis>;

bool Matches(ffi::Span<const int64_t> dimensions, Axes axes) {
  if (dimensions.size() != axes.size()) return false;
  size_t k = 0;
  for (const Axis& axis : axes) {
    int64_t dimension = dimensions[k++];
    if (axis.size == kUnknown && dimension % axis.blocks == 0)
      axis.size = dimension / axis.blocks;
    if (dimension != axis.size * axis.blocks) return false;
  }
  return true;
}

std::string Shape(ffi::Span<const int64_t> dimensions) {
  std::string text;
  for (int64_t dimension : dimensions)
    text += (text.empty() ? "" : ", ") + std::to_string(dimension);
  return "[" + text + "]";
}

std::string Shape(Axes axes) {
  std::string text;
  for (const Axis& axis : axes)
    text += (text.empty() ? "" : ", ") +
            (axis.size == kUnknown ? "?" : std::to_string(axis.size * axis.blocks));
  return "[" + text + "]";
}

// Takes the arguments and the results of a call in their order. After the first that
// does not match, `error` names it.
class Buffers {
 public:
  Buffers(ffi::RemainingArgs args, ffi::RemainingRets rets)
      : args_(args), rets_(rets) {}

  const float* Floats(const char* name, Axes axes) {
    return static_cast<const float*>(Argument(name, ffi::DataType::F32, axes));
  }
  const int32_t* Integers(const char* name, Axes axes) {
    return static_cast<const int32_t*>(Argument(name, ffi::DataType::S32, axes));
  }
  float* Result(const char* name, Axes axes) {
    auto result = rets_.get<ffi::AnyBuffer>(ret_++);
    if (!result.has_value()) return static_cast<float*>(Fail(name, "is missing"));
    UseLargePages((*result)->untyped_data(), (*result)->size_bytes());
    return static_cast<float*>(Check(name, **result, ffi::DataType::F32, axes));
  }

  // After all have been taken.
  ffi::Error Finish() {
    if (error.success() && (arg_ != args_.size() || ret_ != rets_.size()))
      error = ffi::Error::InvalidArgument("there are too many arguments or results");
    return error;
  }

  ffi::Error error;

 private:
  void* Argument(const char* name, ffi::DataType type, Axes axes) {
    auto argument = args_.get<ffi::AnyBuffer>(arg_++);
    if (!argument.has_value()) return Fail(name, "is missing");
    return Check(name, *argument, type, axes);
  }

  void* Check(const char* name, const ffi::AnyBuffer& buffer, ffi::DataType type,
              Axes axes) {
    std::string wanted = type == ffi::DataType::F32 ? "float32 " : "int32 ";
    if (buffer.element_type() != type) return Fail(name, "must be " + wanted);
    if (Matches(buffer.dimensions(), axes)) return buffer.untyped_data();
    return Fail(name, "must be " + wanted + Shape(axes) + ", but its shape is " +
                          Shape(buffer.dimensions()));
  }

  void* Fail(const char* name, const std::string& problem) {
    if (error.success())
      error = ffi::Error::InvalidArgument(std::string(name) + " " + problem);
    return nullptr;
  }

  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  size_t arg_ = 0, ret_ = 0;
};

constexpr const char* kWInputs[] = {"w_inputs[0]", "w_inputs[1]"};
constexpr const char* kWState[] = {"w_state[0]", "w_state[1]"};
constexpr const char* kBias[] = {"bias[0]", "bias[1]"};
constexpr const char* kZs[] = {"zs[0]", "zs[1]"};
constexpr const char* kCZs[] = {"c_zs[0]", "c_zs[1]"};

// The arrays whose shapes all calls share.
class Sequences : public Buffers {
 public:
  Sequences(ffi::RemainingArgs args, ffi::RemainingRets rets, Sizes& sizes)
      : Buffers(args, rets),
        sizes_(sizes),
        first_(sizes.time_major ? sizes.time : sizes.batch),
        second_(sizes.time_major ? sizes.batch : sizes.time) {}

  const int32_t* Lengths() { return Integers("lengths", {{sizes_.batch}}); }
  const int32_t* Starts() { return Integers("starts", {{first_}, {second_}}); }
  const float* Sequence(const char* name, int64_t& size, int64_t blocks = 1) {
    return Floats(name, {{first_}, {second_}, {size, blocks}});
  }
  float* SequenceResult(const char* name, int64_t& size, int64_t blocks = 1) {
    return Result(name, {{first_}, {second_}, {size, blocks}});
  }

 protected:
  Sizes& sizes_;

 private:
  int64_t &first_, &second_;
};

// And those that the loops share.
class Arrays : public Sequences {
 public:
  Arrays(ffi::RemainingArgs args, ffi::RemainingRets rets, Cell cell, Sizes& sizes)
      : Sequences(args, rets, sizes), cell_(cell) {}

  const float* Rows(const char* name, int64_t& rows) {
    return Floats(name, {{rows}, {sizes_.units}});
  }
  const float* Matrix(const char* name, int64_t& rows, int stage) {
    return Floats(name, {{rows}, {sizes_.units, Blocks(cell_, stage)}});
  }
  float* UnitsResult(const char* name, int64_t blocks = 1) {
    return SequenceResult(name, sizes_.units, blocks);
  }
  float* RowsResult(const char* name, int64_t& rows) {
    return Result(name, {{rows}, {sizes_.units}});
  }

 private:
  Cell cell_;
};

ffi::Error CheckAttributes(int32_t cell, int32_t time_axis) {
  if (cell < 0 || cell > 2)
    return ffi::Error::InvalidArgument("cell must be 0, 1 or 2");
  if (time_axis == 0 || time_axis == 1) return ffi::Error::Success();
  return ffi::Error::InvalidArgument("time_axis must be 0 or 1");
}

// Restart states are read, and their cotangents written, at these numbers.
ffi::Error CheckStarts(const int32_t* starts, const Sizes& sizes) {
  for (int64_t k = 0; starts != nullptr && k < sizes.batch * sizes.time; k++)
    if (starts[k] >= sizes.sequences)
      return ffi::Error::InvalidArgument(
          "starts must be less than the number of sequences");
  return ffi::Error::Success();
}

Sizes UnknownSizes(int32_t time_axis) {
  return {kUnknown, kUnknown, kUnknown, kUnknown, kUnknown, time_axis == 0};
}

// Runs a loop of the target that is chosen at the first call.
template <typename Loop, typename Run>
ffi::Error RunLoop(Loop Target::* loop, const Run& run, ffi::ThreadPool& pool) {
  static const Choice choice = Choose(std::getenv("JAXRNN_NATIVE_TARGET"));
  if (!choice.error.empty()) return ffi::Error::InvalidArgument(choice.error);
  PoolExecutor executor(pool);
  try {
    (choice.target.*loop)(run, executor);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
  }
  return ffi::Error::Success();
}

ffi::Error CallForward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t cell, float forget_bias,
                       int32_t time_axis, bool restarts, bool save) {
  if (ffi::Error error = CheckAttributes(cell, time_axis); error.failure())
    return error;
  Forward run = {static_cast<Cell>(cell), UnknownSizes(time_axis), forget_bias};
  Sizes& sizes = run.sizes;
  Arrays arrays(args, rets, run.cell, sizes);
  bool lstm = run.cell == Cell::kLstm;

  run.lengths = arrays.Lengths();
  if (restarts) run.starts = arrays.Starts();
  run.x = arrays.Sequence("x", sizes.depth);
  for (int k = 0; k < Stages(run.cell); k++) {
    run.w_inputs[k] = arrays.Matrix(kWInputs[k], sizes.depth, k);
    run.w_state[k] = arrays.Matrix(kWState[k], sizes.units, k);
    run.bias[k] = arrays.Floats(kBias[k], {{sizes.units, Blocks(run.cell, k)}});
  }
  run.h = arrays.Rows("h", sizes.batch);
  if (lstm) run.c = arrays.Rows("c", sizes.batch);
  if (restarts) run.restart_h = arrays.Rows("restart_h", sizes.sequences);
  if (restarts && lstm) run.restart_c = arrays.Rows("restart_c", sizes.sequences);

  run.outputs = arrays.UnitsResult("outputs");
  run.last_h = arrays.RowsResult("last_h", sizes.batch);
  if (lstm) run.last_c = arrays.RowsResult("last_c", sizes.batch);
  if (restarts && lstm) run.new_c = arrays.UnitsResult("new_c");
  if (save) {
    for (int k = 0; k < Stages(run.cell); k++)
      run.zs[k] = arrays.UnitsResult(kZs[k], Blocks(run.cell, k));
    run.saved_h = arrays.UnitsResult("saved_h");
    if (lstm) run.saved_c = arrays.UnitsResult("saved_c");
  }
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  if (ffi::Error error = CheckStarts(run.starts, sizes); error.failure()) return error;
  return RunLoop(&Target::forward, run, pool);
}

ffi::Error CallBackward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                        ffi::RemainingRets rets, int32_t cell, float forget_bias,
                        int32_t time_axis, bool restarts) {
  if (ffi::Error error = CheckAttributes(cell, time_axis); error.failure())
    return error;
  Backward run = {static_cast<Cell>(cell), UnknownSizes(time_axis), forget_bias};
  Sizes& sizes = run.sizes;
  Arrays arrays(args, rets, run.cell, sizes);
  bool lstm = run.cell == Cell::kLstm;

  run.lengths = arrays.Lengths();
  if (restarts) run.starts = arrays.Starts();
  for (int k = 0; k < Stages(run.cell); k++)
    run.w_state[k] = arrays.Matrix(kWState[k], sizes.units, k);
  for (int k = 0; k < Stages(run.cell); k++)
    run.zs[k] = arrays.Sequence(kZs[k], sizes.units, Blocks(run.cell, k));
  run.saved_h = arrays.Sequence("saved_h", sizes.units);
  if (lstm) run.saved_c = arrays.Sequence("saved_c", sizes.units);
  run.c_outputs = arrays.Sequence("c_outputs", sizes.units);
  if (restarts && lstm) run.c_new_c = arrays.Sequence("c_new_c", sizes.units);
  run.c_last_h = arrays.Rows("c_last_h", sizes.batch);
  if (lstm) run.c_last_c = arrays.Rows("c_last_c", sizes.batch);

  for (int k = 0; k < Stages(run.cell); k++)
    run.c_zs[k] = arrays.UnitsResult(kCZs[k], Blocks(run.cell, k));
  if (run.cell == Cell::kGru) run.operand = arrays.UnitsResult("operand");
  run.c_h = arrays.RowsResult("c_h", sizes.batch);
  if (lstm) run.c_c = arrays.RowsResult("c_c", sizes.batch);
  if (restarts) run.c_restart_h = arrays.RowsResult("c_restart_h", sizes.sequences);
  if (restarts && lstm)
    run.c_restart_c = arrays.RowsResult("c_restart_c", sizes.sequences);
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  if (ffi::Error error = CheckStarts(run.starts, sizes); error.failure()) return error;
  return RunLoop(&Target::backward, run, pool);
}

ffi::Error CallWeights(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t time_axis) {
  Weights run = {UnknownSizes(time_axis), kUnknown};
  Sizes& sizes = run.sizes;
  Sequences arrays(args, rets, sizes);
  run.lengths = arrays.Lengths();
  run.x = arrays.Sequence("x", sizes.depth);
  run.operand = arrays.Sequence("operand", sizes.units);
  run.c_zs = arrays.Sequence("c_zs", run.columns);
  run.c_w_inputs = arrays.Result("c_w_inputs", {{sizes.depth}, {run.columns}});
  run.c_w_state = arrays.Result("c_w_state", {{sizes.units}, {run.columns}});
  run.c_bias = arrays.Result("c_bias", {{run.columns}});
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return RunLoop(&Target::weights, run, pool);
}

ffi::Error CallInputs(ffi::ThreadPool pool, ffi::RemainingArgs args,
                      ffi::RemainingRets rets, int32_t time_axis, int32_t stages) {
  if (stages < 1 || stages > kMaxStages)
    return ffi::Error::InvalidArgument("stages must be 1 or 2");
  Inputs run = {UnknownSizes(time_axis), stages, {kUnknown, kUnknown}};
  Sequences arrays(args, rets, run.sizes);
  run.lengths = arrays.Lengths();
  for (int k = 0; k < stages; k++) {
    run.w_inputs[k] = arrays.Floats(kWInputs[k], {{run.sizes.depth}, {run.columns[k]}});
    run.c_zs[k] = arrays.Sequence(kCZs[k], run.columns[k]);
  }
  run.c_x = arrays.SequenceResult("c_x", run.sizes.depth);
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return RunLoop(&Target::inputs, run, pool);
}

}  // namespace
}  // namespace jaxrnn

#define JAXRNN_EXPORT extern "C" __attribute__((visibility("default")))

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeForward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeForward, jaxrnn::CallForward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("cell")
                                  .Attr<float>("forget_bias")
                                  .Attr<int32_t>("time_axis")
                                  .Attr<bool>("restarts")
                                  .Attr<bool>("save"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeBackward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeBackward, jaxrnn::CallBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("cell")
                                  .Attr<float>("forget_bias")
                                  .Attr<int32_t>("time_axis")
                                  .Attr<bool>("restarts"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeWeights(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeWeights, jaxrnn::CallWeights,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("time_axis"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeInputs(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeInputs, jaxrnn::CallInputs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("time_axis")
                                  .Attr<int32_t>("stages"));
