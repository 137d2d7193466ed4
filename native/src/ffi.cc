// Implements the calls from XLA. Each call finds its arrays, checks their types and
// sizes, and runs its loop.
#include "xla/ffi/api/ffi.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "helpers.h"
#include "loops.h"

namespace ffi = xla::ffi;

namespace jaxrnn {
namespace {

constexpr int64_t kUnknown = -1;

// Runs functions on this library's threads, as many as XLA's pool has.
class HelpersExecutor final : public Executor {
 public:
  explicit HelpersExecutor(ffi::ThreadPool& pool)
      : threads_(std::max<int64_t>(1, pool.num_threads())) {}
  int64_t threads() const override { return threads_; }
  void Schedule(std::function<void()> function) override {
    ProcessHelpers::Get().Schedule(std::move(function), threads_ - 1);
  }

 private:
  const int64_t threads_;
};

// An axis whose length is `times` times `size`. `size` is kUnknown until an array
// determines it.
struct Axis {
  int64_t& size;
  int64_t times = 1;
};
using Axes = std::initializer_list<Axis>;

// Whether the dimensions after the entry axis match these axes. Sets unknown sizes.
bool Matches(ffi::Span<const int64_t> dimensions, Axes axes) {
  if (dimensions.size() != axes.size() + 1) return false;
  size_t k = 1;
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

std::string Shape(int64_t entries, Axes axes) {
  std::string text = std::to_string(entries);
  for (const Axis& axis : axes) {
    text += ", ";
    text += axis.size == kUnknown ? "?" : std::to_string(axis.size * axis.times);
  }
  return "[" + text + "]";
}

// The arguments and results of a call. Their first axis is the entry axis. Its size is
// 1 for an argument that all entries share.
struct Call {
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;

  int64_t Entries() const {
    auto result = rets.get<ffi::AnyBuffer>(0);
    if (!result.has_value() || (*result)->dimensions().size() == 0) return 1;
    return (*result)->dimensions()[0];
  }
};

// Returns the buffers of one entry in order. `error` describes the first buffer that
// does not match.
class Buffers {
 public:
  Buffers(const Call& call, int64_t number)
      : args_(call.args), rets_(call.rets), entries_(call.Entries()), number_(number) {}

  const float* Floats(const std::string& name, Axes axes) {
    return static_cast<const float*>(Argument(name, ffi::DataType::F32, axes));
  }
  const int32_t* Integers(const std::string& name, Axes axes) {
    return static_cast<const int32_t*>(Argument(name, ffi::DataType::S32, axes));
  }
  float* Result(const std::string& name, Axes axes) {
    auto result = rets_.get<ffi::AnyBuffer>(ret_++);
    if (!result.has_value()) return static_cast<float*>(Fail(name, "is missing"));
    return static_cast<float*>(
        Check(name, **result, ffi::DataType::F32, entries_, axes));
  }

  // Must be called after all buffers have been requested.
  ffi::Error Finish() {
    if (error.success() && (arg_ != args_.size() || ret_ != rets_.size()))
      error = ffi::Error::InvalidArgument("there are too many arguments or results");
    return error;
  }

  ffi::Error error;

 private:
  void* Argument(const std::string& name, ffi::DataType type, Axes axes) {
    auto argument = args_.get<ffi::AnyBuffer>(arg_++);
    if (!argument.has_value()) return Fail(name, "is missing");
    return Check(name, *argument, type, 1, axes);
  }

  // Returns this entry's data in `buffer`, which must hold `entries` entries or all
  // entries.
  void* Check(const std::string& name, const ffi::AnyBuffer& buffer, ffi::DataType type,
              int64_t entries, Axes axes) {
    std::string wanted = type == ffi::DataType::F32 ? "float32 " : "int32 ";
    if (buffer.element_type() != type) return Fail(name, "must be " + wanted);
    ffi::Span<const int64_t> dimensions = buffer.dimensions();
    int64_t count = dimensions.size() == 0 ? 0 : dimensions[0];
    if ((count == entries || count == entries_) && Matches(dimensions, axes)) {
      size_t size = buffer.size_bytes() / count;
      return static_cast<char*>(buffer.untyped_data()) + number_ % count * size;
    }
    return Fail(name, "must be " + wanted + Shape(entries_, axes) +
                          ", but its shape is " + Shape(dimensions));
  }

  void* Fail(const std::string& name, const std::string& problem) {
    if (error.success()) error = ffi::Error::InvalidArgument(name + " " + problem);
    return nullptr;
  }

  ffi::RemainingArgs args_;
  ffi::RemainingRets rets_;
  int64_t entries_, number_;
  size_t arg_ = 0, ret_ = 0;
};

// The name of product k's array.
std::string Of(const char* name, int k) {
  return std::string(name) + "[" + std::to_string(k) + "]";
}

// Finds the arrays that have the same shapes in all calls.
class Sequences : public Buffers {
 public:
  Sequences(const Call& call, int64_t number, Sizes& sizes)
      : Buffers(call, number),
        sizes_(sizes),
        first_(sizes.time_major ? sizes.time : sizes.batch),
        second_(sizes.time_major ? sizes.batch : sizes.time) {}

  const int32_t* Lengths() { return Integers("lengths", {{sizes_.batch}}); }
  const int32_t* Starts() { return Integers("starts", {{first_}, {second_}}); }
  const float* Sequence(const std::string& name, Axis size) {
    return Floats(name, {{first_}, {second_}, size});
  }
  float* SequenceResult(const std::string& name, Axis size) {
    return Result(name, {{first_}, {second_}, size});
  }

 protected:
  Sizes& sizes_;

 private:
  int64_t &first_, &second_;
};

// Also finds the arrays that only the loops over the steps use.
class Arrays : public Sequences {
 public:
  Arrays(const Call& call, int64_t number, Cell cell, Sizes& sizes)
      : Sequences(call, number, sizes), cell_(cell) {}

  // The column axis of product k.
  Axis Columns(int k) {
    if (cell_ == Cell::kProjectedLstm && k == 1) return {sizes_.outputs};
    return {sizes_.units, ProductOf(cell_, k).gates};
  }
  const float* WState(int k) {
    int64_t& rows = k == 0 ? h_size() : sizes_.units;
    return Floats(Of("w_state", k), {{rows}, Columns(k)});
  }
  const float* Elementwise() {
    return Floats("elementwise", {{vectors_}, {sizes_.units}});
  }
  float* ElementwiseResult() {
    return Result("ct_elementwise", {{sizes_.batch}, {vectors_}, {sizes_.units}});
  }

  // Arrays of h and c. Arrays of c are null unless the cell is an LSTM.
  const float* H(const char* name, int64_t& rows) {
    return Floats(name, {{rows}, {h_size()}});
  }
  const float* C(const char* name, int64_t& rows) {
    return has_c() ? Floats(name, {{rows}, {sizes_.units}}) : nullptr;
  }
  const float* HSequence(const char* name) { return Sequence(name, {h_size()}); }
  const float* CSequence(const char* name) {
    return has_c() ? Sequence(name, {sizes_.units}) : nullptr;
  }
  float* HResult(const char* name, int64_t& rows) {
    return Result(name, {{rows}, {h_size()}});
  }
  float* CResult(const char* name, int64_t& rows) {
    return has_c() ? Result(name, {{rows}, {sizes_.units}}) : nullptr;
  }
  float* HSequenceResult(const char* name) { return SequenceResult(name, {h_size()}); }
  float* CSequenceResult(const char* name) {
    return has_c() ? SequenceResult(name, {sizes_.units}) : nullptr;
  }

  // Must be called when all sizes are known.
  ffi::Error Finish() {
    if (cell_ != Cell::kProjectedLstm) sizes_.outputs = sizes_.units;
    if (error.success() && sizes_.time == 0)
      error = ffi::Error::InvalidArgument("there must be a step");
    return Buffers::Finish();
  }

 private:
  bool has_c() const { return HasC(cell_); }
  // The size of h, which equals the number of units unless h is projected.
  int64_t& h_size() {
    return cell_ == Cell::kProjectedLstm ? sizes_.outputs : sizes_.units;
  }

  Cell cell_;
  int64_t vectors_ = ElementwiseVectors(cell_);
};

ffi::Error CheckTimeAxis(int32_t time_axis) {
  if (time_axis == 0 || time_axis == 1) return ffi::Error::Success();
  return ffi::Error::InvalidArgument("time_axis must be 0 or 1");
}

ffi::Error CheckAttributes(int32_t cell, int32_t activation, bool elementwise,
                           int32_t time_axis) {
  if (cell < 0 || cell >= kCells)
    return ffi::Error::InvalidArgument("cell must be from 0 to " +
                                       std::to_string(kCells - 1));
  if (activation < 0 || activation >= kActivations)
    return ffi::Error::InvalidArgument("activation must be from 0 to " +
                                       std::to_string(kActivations - 1));
  if (Cell(cell) == Cell::kNormedLstm && !elementwise)
    return ffi::Error::InvalidArgument("elementwise must be true for this cell");
  if (ElementwiseVectors(Cell(cell)) == 0 && elementwise)
    return ffi::Error::InvalidArgument("elementwise must be false for this cell");
  return CheckTimeAxis(time_axis);
}

// The loops use `starts` as indices into the restart states and their cotangents, so
// `starts` must be in bounds.
ffi::Error CheckStarts(const int32_t* starts, const Sizes& sizes) {
  for (int64_t k = 0; starts != nullptr && k < sizes.batch * sizes.time; k++)
    if (starts[k] >= sizes.sequences)
      return ffi::Error::InvalidArgument(
          "starts must be less than the number of sequences");
  return ffi::Error::Success();
}

Sizes UnknownSizes(int32_t time_axis) {
  return {kUnknown, kUnknown, kUnknown, kUnknown, kUnknown, kUnknown, time_axis == 0};
}

// The target, chosen on first use.
const Choice& Chosen() {
  static const Choice choice = Choose(std::getenv("JAXRNN_NATIVE_TARGET"));
  return choice;
}

// Runs one of the target's loops for all entries. find(entry, number) finds the arrays
// of one entry.
template <typename Loop, typename Entry, typename Find>
ffi::Error RunLoop(Loop Target::* loop, const Entry& without_arrays, const Call& call,
                   const Find& find, ffi::ThreadPool& pool) {
  if (const std::string& error = Chosen().error; !error.empty())
    return ffi::Error(ffi::ErrorCode::kFailedPrecondition, error);
  HelpersExecutor executor(pool);
  try {
    std::vector<Entry> entries(call.Entries(), without_arrays);
    for (size_t k = 0; k < entries.size(); k++)
      if (ffi::Error error = find(entries[k], k); error.failure()) return error;
    (Chosen().target.*loop)(entries, executor);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
  }
  return ffi::Error::Success();
}

ffi::Error FindArrays(Forward& entry, const Call& call, int64_t number,
                      bool elementwise, bool restarts, bool new_states, bool save) {
  Sizes& sizes = entry.sizes;
  Arrays arrays(call, number, entry.cell, sizes);
  const int products = Products(entry.cell);

  entry.lengths = arrays.Lengths();
  if (restarts) entry.starts = arrays.Starts();
  entry.x = arrays.Sequence("x", {sizes.depth});
  for (int k = 0; k < products; k++) {
    const Product product = ProductOf(entry.cell, k);
    const Axis columns = arrays.Columns(k);
    if (product.inputs)
      entry.w_inputs[k] = arrays.Floats(Of("w_inputs", k), {{sizes.depth}, columns});
    if (product.state) entry.w_state[k] = arrays.WState(k);
    if (product.bias) entry.bias[k] = arrays.Floats(Of("bias", k), {columns});
  }
  if (elementwise) entry.settings.elementwise = arrays.Elementwise();
  entry.h = arrays.H("h", sizes.batch);
  entry.c = arrays.C("c", sizes.batch);
  if (restarts) {
    entry.restart_h = arrays.H("restart_h", sizes.sequences);
    entry.restart_c = arrays.C("restart_c", sizes.sequences);
  }

  entry.outputs = arrays.HSequenceResult("outputs");
  entry.last_h = arrays.HResult("last_h", sizes.batch);
  entry.last_c = arrays.CResult("last_c", sizes.batch);
  if (new_states) entry.new_c = arrays.CSequenceResult("new_c");
  if (save) {
    for (int k = 0; k < products; k++)
      entry.zs[k] = arrays.SequenceResult(Of("zs", k), arrays.Columns(k));
    if (restarts) entry.saved_h = arrays.HSequenceResult("saved_h");
    entry.saved_c = arrays.CSequenceResult("saved_c");
  }
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return CheckStarts(entry.starts, sizes);
}

ffi::Error CallForward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t cell, int32_t activation,
                       float forget_bias, float cell_clip, float output_clip,
                       bool elementwise, int32_t time_axis, bool restarts,
                       bool new_states, bool save) {
  if (ffi::Error error = CheckAttributes(cell, activation, elementwise, time_axis);
      error.failure())
    return error;
  Forward entry = {
      static_cast<Cell>(cell),
      UnknownSizes(time_axis),
      {Activation(activation), forget_bias, cell_clip, output_clip, nullptr}};
  const Call call = {args, rets};
  auto find = [&](Forward& own, int64_t number) {
    return FindArrays(own, call, number, elementwise, restarts, new_states, save);
  };
  return RunLoop(&Target::forward, entry, call, find, pool);
}

ffi::Error FindArrays(Backward& entry, const Call& call, int64_t number,
                      bool elementwise, bool restarts, bool new_states) {
  Sizes& sizes = entry.sizes;
  Arrays arrays(call, number, entry.cell, sizes);
  const int products = Products(entry.cell);

  entry.lengths = arrays.Lengths();
  if (restarts) entry.starts = arrays.Starts();
  for (int k = 0; k < products; k++) {
    if (ProductOf(entry.cell, k).state) entry.w_state[k] = arrays.WState(k);
  }
  if (elementwise) entry.settings.elementwise = arrays.Elementwise();
  for (int k = 0; k < products; k++)
    entry.zs[k] = arrays.Sequence(Of("zs", k), arrays.Columns(k));
  if (restarts) entry.saved_h = arrays.HSequence("saved_h");
  if (!restarts) entry.outputs = arrays.HSequence("outputs");
  entry.saved_c = arrays.CSequence("saved_c");
  if (!restarts) entry.h = arrays.H("h", sizes.batch);
  entry.ct_outputs = arrays.HSequence("ct_outputs");
  if (new_states) entry.ct_new_c = arrays.CSequence("ct_new_c");
  entry.ct_last_h = arrays.H("ct_last_h", sizes.batch);
  entry.ct_last_c = arrays.C("ct_last_c", sizes.batch);

  for (int k = 0; k < products; k++)
    entry.ct_zs[k] = arrays.SequenceResult(Of("ct_zs", k), arrays.Columns(k));
  if (HasOperand(entry.cell))
    entry.operand = arrays.SequenceResult("operand", {sizes.units});
  entry.ct_h = arrays.HResult("ct_h", sizes.batch);
  entry.ct_c = arrays.CResult("ct_c", sizes.batch);
  if (restarts) {
    entry.ct_restart_h = arrays.HResult("ct_restart_h", sizes.sequences);
    entry.ct_restart_c = arrays.CResult("ct_restart_c", sizes.sequences);
  }
  if (elementwise) entry.ct_elementwise = arrays.ElementwiseResult();
  if (ffi::Error error = arrays.Finish(); error.failure()) return error;
  return CheckStarts(entry.starts, sizes);
}

ffi::Error CallBackward(ffi::ThreadPool pool, ffi::RemainingArgs args,
                        ffi::RemainingRets rets, int32_t cell, int32_t activation,
                        float forget_bias, float cell_clip, float output_clip,
                        bool elementwise, int32_t time_axis, bool restarts,
                        bool new_states) {
  if (ffi::Error error = CheckAttributes(cell, activation, elementwise, time_axis);
      error.failure())
    return error;
  Backward entry = {
      static_cast<Cell>(cell),
      UnknownSizes(time_axis),
      {Activation(activation), forget_bias, cell_clip, output_clip, nullptr}};
  const Call call = {args, rets};
  auto find = [&](Backward& own, int64_t number) {
    return FindArrays(own, call, number, elementwise, restarts, new_states);
  };
  return RunLoop(&Target::backward, entry, call, find, pool);
}

ffi::Error FindArrays(Weights& entry, const Call& call, int64_t number, bool inputs,
                      bool state, bool before, bool bias) {
  Sizes& sizes = entry.sizes;
  if (!inputs) sizes.depth = 0;
  if (!state) sizes.units = 0;
  Sequences arrays(call, number, sizes);
  const Axis columns = {entry.columns};
  entry.lengths = arrays.Lengths();
  if (inputs) entry.x = arrays.Sequence("x", {sizes.depth});
  if (state) entry.operand = arrays.Sequence("operand", {sizes.units});
  if (before) entry.first = arrays.Floats("first", {{sizes.batch}, {sizes.units}});
  entry.ct_zs = arrays.Sequence("ct_zs", columns);
  if (inputs)
    entry.ct_w_inputs = arrays.Result("ct_w_inputs", {{sizes.depth}, columns});
  if (state) entry.ct_w_state = arrays.Result("ct_w_state", {{sizes.units}, columns});
  if (bias) entry.ct_bias = arrays.Result("ct_bias", {columns});
  return arrays.Finish();
}

ffi::Error CallWeights(ffi::ThreadPool pool, ffi::RemainingArgs args,
                       ffi::RemainingRets rets, int32_t time_axis, bool inputs,
                       bool state, bool before, bool bias) {
  if (ffi::Error error = CheckTimeAxis(time_axis); error.failure()) return error;
  Weights entry = {UnknownSizes(time_axis), kUnknown};
  const Call call = {args, rets};
  auto find = [&](Weights& own, int64_t number) {
    return FindArrays(own, call, number, inputs, state, before, bias);
  };
  return RunLoop(&Target::weights, entry, call, find, pool);
}

ffi::Error FindArrays(Inputs& entry, const Call& call, int64_t number) {
  Sequences arrays(call, number, entry.sizes);
  entry.lengths = arrays.Lengths();
  for (int k = 0; k < entry.products; k++) {
    const Axis columns = {entry.columns[k]};
    entry.w_inputs[k] =
        arrays.Floats(Of("w_inputs", k), {{entry.sizes.depth}, columns});
    entry.ct_zs[k] = arrays.Sequence(Of("ct_zs", k), columns);
  }
  entry.ct_x = arrays.SequenceResult("ct_x", {entry.sizes.depth});
  return arrays.Finish();
}

ffi::Error CallInputs(ffi::ThreadPool pool, ffi::RemainingArgs args,
                      ffi::RemainingRets rets, int32_t time_axis, int32_t products) {
  if (ffi::Error error = CheckTimeAxis(time_axis); error.failure()) return error;
  if (products < 1 || products > kMaxProducts)
    return ffi::Error::InvalidArgument("products must be from 1 to " +
                                       std::to_string(kMaxProducts));
  Inputs entry = {UnknownSizes(time_axis), products, {kUnknown, kUnknown, kUnknown}};
  const Call call = {args, rets};
  auto find = [&](Inputs& own, int64_t number) {
    return FindArrays(own, call, number);
  };
  return RunLoop(&Target::inputs, entry, call, find, pool);
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
                                  .Attr<int32_t>("activation")
                                  .Attr<float>("forget_bias")
                                  .Attr<float>("cell_clip")
                                  .Attr<float>("output_clip")
                                  .Attr<bool>("elementwise")
                                  .Attr<int32_t>("time_axis")
                                  .Attr<bool>("restarts")
                                  .Attr<bool>("new_states")
                                  .Attr<bool>("save"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeBackward(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeBackward, jaxrnn::CallBackward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("cell")
                                  .Attr<int32_t>("activation")
                                  .Attr<float>("forget_bias")
                                  .Attr<float>("cell_clip")
                                  .Attr<float>("output_clip")
                                  .Attr<bool>("elementwise")
                                  .Attr<int32_t>("time_axis")
                                  .Attr<bool>("restarts")
                                  .Attr<bool>("new_states"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeWeights(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeWeights, jaxrnn::CallWeights,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("time_axis")
                                  .Attr<bool>("inputs")
                                  .Attr<bool>("state")
                                  .Attr<bool>("before")
                                  .Attr<bool>("bias"));

JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNativeInputs(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxrnnNativeInputs, jaxrnn::CallInputs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<int32_t>("time_axis")
                                  .Attr<int32_t>("products"));

// The name of the chosen target, or empty if no target was chosen.
JAXRNN_EXPORT const char* JaxrnnNativeTarget() {
  const jaxrnn::Choice& choice = jaxrnn::Chosen();
  return choice.error.empty() ? choice.target.name : "";
}

// Why no target was chosen and no call may be registered; otherwise empty.
JAXRNN_EXPORT const char* JaxrnnNativeError() { return jaxrnn::Chosen().error.c_str(); }
