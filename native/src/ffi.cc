// The calls from XLA: finds the arrays of a call, checks their types and sizes, runs
// it.
#include "xla/ffi/api/ffi.h"

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

// The size of an axis: a multiple of a size, which is kUnknown before the first
// array that has it.
struct Axis {
  int64_t& size;
  int64_t times = 1;
};
using Axes = std::initializer_list<Axis>;

bool Matches(ffi::Span<const int64_t> dimensions, Axes axes) {
  if (dimensions.size() != axes.size()) return false;
  size_t k = 0;
  for (const Axis& axis : axes) {
    int64_t dimension = dimensions[k++];
    if (axis.size == kUnknown && dimension % axis.times == 0)
      axis.size = dimension / axis.times;
    if (dimension != axis.size * axis.times) return false;
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
            (axis.size == kUnknown ? "?" : std::to_string(axis.size * axis.times));
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
  const float* Sequence(const char* name, int64_t& size, int64_t times = 1) {
    return Floats(name, {{first_}, {second_}, {size, times}});
  }
  float* SequenceResult(const char* name, int64_t& size, int64_t times = 1) {
    return Result(name, {{first_}, {second_}, {size, times}});
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
    return Floats(name, {{rows}, {sizes_.units, Gates(cell_, stage)}});
  }
  float* UnitsResult(const char* name, int64_t times = 1) {
    return SequenceResult(name, sizes_.units, times);
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

// The target, which is chosen at the first call.
const Choice& Chosen() {
  static const Choice choice = Choose(std::getenv("JAXRNN_NATIVE_TARGET"));
  return choice;
}

// Runs a loop of the target.
template <typename Loop, typename Run>
ffi::Error RunLoop(Loop Target::* loop, const Run& call, ffi::ThreadPool& pool) {
  const Choice& choice = Chosen();
  if (!choice.error.empty()) return ffi::Error::InvalidArgument(choice.error);
  PoolExecutor executor(pool);
  try {
    (choice.target.*loop)(call, executor);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
  }
  return ffi::Error::Success();
}

ffi::Error CallForward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t cell, float forget_bias,
                       int32_t time_axis, bool restarts, bool new_c, bool save) {
  if (ffi::Error error = CheckAttributes(cell, time_axis); error.failure())
    return error;
  Forward call = {static_cast<Cell>(cell), UnknownSizes(time_axis), forget_bias};
  Sizes& sizes = call.sizes;
  Arrays arrays(args, rets, call.cell, sizes);
  bool lstm = call.cell == Cell::kLstm;

  call.lengths = arrays.Lengths();
  if (restarts) call.starts = arrays.Starts();
  call.x = arrays.Sequence("x", sizes.depth);
  for (int k = 0; k < Stages(call.cell); k++) {
    call.w_inputs[k] = arrays.Matrix(kWInputs[k], sizes.depth, k);
    call.w_state[k] = arrays.Matrix(kWState[k], sizes.units, k);
    call.bias[k] = arrays.Floats(kBias[k], {{sizes.units, Gates(call.cell, k)}});
  }
  call.h = arrays.Rows("h", sizes.batch);
  if (lstm) call.c = arrays.Rows("c", sizes.batch);
  if (restarts) call.restart_h = arrays.Rows("restart_h", sizes.sequences);
  if (restarts && lstm) call.restart_c = arrays.Rows("restart_c", sizes.sequences);

  call.outputs = arrays.UnitsResult("outputs");
  call.last_h = arrays.RowsResult("last_h", sizes.batch);
  if (lstm) call.last_c = arrays.RowsResult("last_c", sizes.batch);
  if (new_c) call.new_c = arrays.UnitsResult("new_c");
  if (save) {
    for (int k = 0; k < Stages(call.cell); k++)
      call.zs[k] = arrays.UnitsResult(kZs[k], Gates(call.cell, k));
    call.saved_h = arrays.UnitsResult("saved_h");
    if (lstm) call.saved_c = arrays.UnitsResult("saved_c");
  }
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  if (ffi::Error error = CheckStarts(call.starts, sizes); error.failure()) return error;
  return RunLoop(&Target::forward, call, pool);
}

ffi::Error CallBackward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                        ffi::RemainingRets rets, int32_t cell, float forget_bias,
                        int32_t time_axis, bool restarts, bool new_c) {
  if (ffi::Error error = CheckAttributes(cell, time_axis); error.failure())
    return error;
  Backward call = {static_cast<Cell>(cell), UnknownSizes(time_axis), forget_bias};
  Sizes& sizes = call.sizes;
  Arrays arrays(args, rets, call.cell, sizes);
  bool lstm = call.cell == Cell::kLstm;

  call.lengths = arrays.Lengths();
  if (restarts) call.starts = arrays.Starts();
  for (int k = 0; k < Stages(call.cell); k++)
    call.w_state[k] = arrays.Matrix(kWState[k], sizes.units, k);
  for (int k = 0; k < Stages(call.cell); k++)
    call.zs[k] = arrays.Sequence(kZs[k], sizes.units, Gates(call.cell, k));
  call.saved_h = arrays.Sequence("saved_h", sizes.units);
  if (lstm) call.saved_c = arrays.Sequence("saved_c", sizes.units);
  call.c_outputs = arrays.Sequence("c_outputs", sizes.units);
  if (new_c) call.c_new_c = arrays.Sequence("c_new_c", sizes.units);
  call.c_last_h = arrays.Rows("c_last_h", sizes.batch);
  if (lstm) call.c_last_c = arrays.Rows("c_last_c", sizes.batch);

  for (int k = 0; k < Stages(call.cell); k++)
    call.c_zs[k] = arrays.UnitsResult(kCZs[k], Gates(call.cell, k));
  if (call.cell == Cell::kGru) call.operand = arrays.UnitsResult("operand");
  call.c_h = arrays.RowsResult("c_h", sizes.batch);
  if (lstm) call.c_c = arrays.RowsResult("c_c", sizes.batch);
  if (restarts) call.c_restart_h = arrays.RowsResult("c_restart_h", sizes.sequences);
  if (restarts && lstm)
    call.c_restart_c = arrays.RowsResult("c_restart_c", sizes.sequences);
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  if (ffi::Error error = CheckStarts(call.starts, sizes); error.failure()) return error;
  return RunLoop(&Target::backward, call, pool);
}

ffi::Error CallWeights(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t time_axis) {
  Weights call = {UnknownSizes(time_axis), kUnknown};
  Sizes& sizes = call.sizes;
  Sequences arrays(args, rets, sizes);
  call.lengths = arrays.Lengths();
  call.x = arrays.Sequence("x", sizes.depth);
  call.operand = arrays.Sequence("operand", sizes.units);
  call.c_zs = arrays.Sequence("c_zs", call.columns);
  call.c_w_inputs = arrays.Result("c_w_inputs", {{sizes.depth}, {call.columns}});
  call.c_w_state = arrays.Result("c_w_state", {{sizes.units}, {call.columns}});
  call.c_bias = arrays.Result("c_bias", {{call.columns}});
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return RunLoop(&Target::weights, call, pool);
}

ffi::Error CallInputs(ffi::ThreadPool pool, ffi::RemainingArgs args,
                      ffi::RemainingRets rets, int32_t time_axis, int32_t stages) {
  if (stages < 1 || stages > kMaxStages)
    return ffi::Error::InvalidArgument("stages must be 1 or 2");
  Inputs call = {UnknownSizes(time_axis), stages, {kUnknown, kUnknown}};
  Sequences arrays(args, rets, call.sizes);
  call.lengths = arrays.Lengths();
  for (int k = 0; k < stages; k++) {
    call.w_inputs[k] =
        arrays.Floats(kWInputs[k], {{call.sizes.depth}, {call.columns[k]}});
    call.c_zs[k] = arrays.Sequence(kCZs[k], call.columns[k]);
  }
  call.c_x = arrays.SequenceResult("c_x", call.sizes.depth);
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return RunLoop(&Target::inputs, call, pool);
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
                                  .Attr<bool>("new_c")
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
                                  .Attr<bool>("restarts")
                                  .Attr<bool>("new_c"));

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

// The name of the target that runs, or why there is none.
JAXRNN_EXPORT const char* JaxrnnNativeTarget() {
  const jaxrnn::Choice& choice = jaxrnn::Chosen();
  return choice.error.empty() ? choice.target.name : choice.error.c_str();
}
