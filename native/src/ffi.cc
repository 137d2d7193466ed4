// Implements the calls from XLA. Each call reads its attributes, checks the sizes of
// its arrays, and runs its loop.
#include "xla/ffi/api/ffi.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "free_list.h"
#include "helpers.h"
#include "layout.h"
#include "loops.h"

namespace ffi = xla::ffi;

namespace jaxrnn {
namespace {

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

struct Call {
  ffi::RemainingArgs args;
  ffi::RemainingRets rets;
  ffi::Dictionary attributes;
};

// Reads the attributes and the arrays of one entry of a call. Arrays hold all entries,
// or one entry if it is an argument that all entries share. `error` describes the first
// problem.
class Reader {
 public:
  Reader(const Call& call, int64_t number)
      : call_(call), number_(number), entries_(Size("entries")) {}

  int64_t entries() const { return entries_; }

  // The value of an attribute, or 0 if it is missing.
  template <typename T>
  T Attribute(const char* name) {
    const ffi::ErrorOr<T> value = call_.attributes.get<T>(name);
    Require(value.has_value(), name, "is missing or has another type");
    return value.has_value() ? *value : T();
  }

  // Sizes are limited so that their products with small numbers do not overflow.
  int64_t Size(const char* name, int64_t least = 1) {
    return InRange(name, Attribute<int64_t>(name), least,
                   std::numeric_limits<int32_t>::max());
  }

  // A number below `count`, as an enumerator of T.
  template <typename T>
  T Enumerator(const char* name, int count) {
    return T(InRange(name, Attribute<int32_t>(name), 0, count - 1));
  }

  int64_t InRange(const std::string& name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      Require(false, name,
              "must be from " + std::to_string(least) + " to " + std::to_string(most) +
                  ", but it is " + std::to_string(value));
    return value;
  }

  void Require(bool is_met, const std::string& name, const std::string& problem) {
    if (!is_met && error.success())
      error = ffi::Error::InvalidArgument(name + " " + problem);
  }

  // Set `array` to the next argument or result, as in layout.h.
  template <typename T>
  void Argument(const std::string& name, const T*& array, double size) {
    if (size == 0) return;
    const auto buffer = call_.args.get<ffi::AnyBuffer>(arg_++);
    Require(buffer.has_value(), name, "is missing");
    if (buffer.has_value()) array = static_cast<T*>(Data(name, *buffer, 1, size));
  }
  void Result(const std::string& name, float*& array, double size) {
    if (size == 0) return;
    auto buffer = call_.rets.get<ffi::AnyBuffer>(ret_++);
    Require(buffer.has_value(), name, "is missing");
    if (number_ == 0 && buffer.has_value())
      RequestHugePages((**buffer).untyped_data(), (**buffer).size_bytes());
    if (buffer.has_value())
      array = static_cast<float*>(Data(name, **buffer, entries_, size));
  }

  // Must be called after all arrays have been read.
  void Finish() {
    if (error.success() && (arg_ != call_.args.size() || ret_ != call_.rets.size()))
      error = ffi::Error::InvalidArgument("there are too many arguments or results");
  }

  ffi::Error error;

 private:
  // This entry's data in a buffer that holds at least `least` entries.
  void* Data(const std::string& name, const ffi::AnyBuffer& buffer, int64_t least,
             double size) {
    const double bytes = buffer.size_bytes(), own = 4 * size;
    if (bytes == own * entries_)
      return static_cast<char*>(buffer.untyped_data()) + number_ * int64_t(own);
    if (bytes != own * least)
      Require(false, name,
              "must have " + std::to_string(int64_t(size)) +
                  " elements of 4 bytes for each of " + std::to_string(entries_) +
                  " entries, but it has " + std::to_string(buffer.size_bytes()) +
                  " bytes");
    return buffer.untyped_data();
  }

  const Call& call_;
  const int64_t number_, entries_;
  size_t arg_ = 0, ret_ = 0;
};

// Reads the cell and the sizes, which all calls have.
void ReadSizes(Reader& reader, Cell& cell, Sizes& sizes) {
  cell = reader.Enumerator<Cell>("cell", kCells);
  sizes.batch = reader.Size("batch");
  sizes.time = reader.Size("time");
  sizes.depth = reader.Size("depth");
  sizes.units = reader.Size("units");
  sizes.outputs = reader.Size("outputs");
  sizes.time_major = reader.Attribute<bool>("time_major");
  sizes.has_resets = reader.Attribute<bool>("resets");
  reader.Require(cell == Cell::kProjectedLstm || sizes.outputs == sizes.units,
                 "outputs", "must equal units for this cell");
}

template <typename Entry>
void ReadLoop(Reader& reader, Entry& entry) {
  ReadSizes(reader, entry.cell, entry.sizes);
  entry.settings.activation = reader.Enumerator<Activation>("activation", kActivations);
  entry.settings.forget_bias = reader.Attribute<float>("forget_bias");
  entry.settings.cell_clip = reader.Attribute<float>("cell_clip");
  entry.settings.output_clip = reader.Attribute<float>("output_clip");
  entry.has_elementwise = reader.Attribute<bool>("elementwise");
  entry.has_new_c = reader.Attribute<bool>("new_states");
  reader.Require(entry.has_elementwise || entry.cell != Cell::kNormedLstm,
                 "elementwise", "must be true for this cell");
}

void Read(Reader& reader, Forward& entry) {
  ReadLoop(reader, entry);
  entry.saves = reader.Attribute<bool>("save");
}

void Read(Reader& reader, Backward& entry) { ReadLoop(reader, entry); }

void Read(Reader& reader, Weights& entry) {
  Cell cell;
  Sizes sizes;
  ReadSizes(reader, cell, sizes);
  const int k = reader.Enumerator<int>("product", Products(cell));
  const bool multiplies_h = ProductOf(cell, k).state && (k == 0 || !HasOperand(cell));
  entry.sizes = sizes;
  entry.sizes.depth = sizes.InputRows(cell, k);
  entry.sizes.units = sizes.StateRows(cell, k);
  entry.columns = sizes.Columns(cell, k);
  entry.has_first = multiplies_h && !sizes.has_resets;
  entry.has_bias = ProductOf(cell, k).bias;
}

void Read(Reader& reader, Inputs& entry) {
  Cell cell;
  ReadSizes(reader, cell, entry.sizes);
  for (int k = 0; k < Products(cell); k++) {
    if (!ProductOf(cell, k).inputs) continue;
    entry.kernels[entry.products] = KernelSize(cell, entry.sizes, k);
    entry.columns[entry.products++] = entry.sizes.Columns(cell, k);
  }
}

// The loops index memory by the lengths.
template <typename Entry>
void CheckLengths(Reader& reader, const Entry& entry) {
  const Sizes& sizes = entry.sizes;
  for (int64_t row = 0; reader.error.success() && row < sizes.batch; row++)
    reader.InRange("lengths", entry.lengths[row], 0, sizes.time);
}

// The target, chosen on first use.
const Choice& Chosen() {
  static const Choice choice = Choose(std::getenv("JAXRNN_NATIVE_TARGET"));
  return choice;
}

// Runs one of the target's loops for all entries.
template <typename Entry, void (*Target::*loop)(const std::vector<Entry>&, Executor&)>
ffi::Error Run(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets,
               ffi::Dictionary attributes) {
  const Call call = {args, rets, attributes};
  HelpersExecutor executor(pool);
  try {
    if (const std::string& error = Chosen().error; !error.empty())
      return ffi::Error(ffi::ErrorCode::kFailedPrecondition, error);
    std::vector<Entry> entries;
    for (int64_t number = 0, count = 1; number < count; number++) {
      Reader reader(call, number);
      Entry entry = {};
      Read(reader, entry);
      if (reader.error.success()) VisitArrays(entry, reader);
      reader.Finish();
      if (reader.error.success()) CheckLengths(reader, entry);
      if (reader.error.failure()) return reader.error;
      entries.push_back(entry);
      count = reader.entries();
    }
    (Chosen().target.*loop)(entries, executor);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
  }
  return ffi::Error::Success();
}

}  // namespace
}  // namespace jaxrnn

#define JAXRNN_EXPORT extern "C" __attribute__((visibility("default")))

#define JAXRNN_CALL(Entry, loop)                                                \
  JAXRNN_EXPORT XLA_FFI_Error* JaxrnnNative##Entry(XLA_FFI_CallFrame*);         \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                \
      JaxrnnNative##Entry, (jaxrnn::Run<jaxrnn::Entry, &jaxrnn::Target::loop>), \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().RemainingArgs().RemainingRets().Attrs())

JAXRNN_CALL(Forward, forward);
JAXRNN_CALL(Backward, backward);
JAXRNN_CALL(Weights, weights);
JAXRNN_CALL(Inputs, inputs);

// The name of the chosen target, or empty if no target was chosen.
JAXRNN_EXPORT const char* JaxrnnNativeTarget() {
  const jaxrnn::Choice& choice = jaxrnn::Chosen();
  return choice.error.empty() ? choice.target.name : "";
}

// Why no target was chosen and no call may be registered; otherwise empty.
JAXRNN_EXPORT const char* JaxrnnNativeError() { return jaxrnn::Chosen().error.c_str(); }
