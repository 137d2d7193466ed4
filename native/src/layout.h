// The arrays of each call, in the order of the call, and their sizes.
#ifndef JAXRNN_LAYOUT_H_
#define JAXRNN_LAYOUT_H_

#include <string>

#include "loops.h"

namespace jaxrnn {

// Each function calls visitor.Argument(name, array, size) for each argument of an
// entry, then visitor.Result(name, array, size) for each result. `array` is the
// entry's pointer. `size` is the number of elements, of 4 bytes each; it is 0 for an
// array that the call lacks. Sizes are doubles, because their products might overflow
// integers.

// The name of product k's array.
inline std::string Of(const char* name, int k) {
  return std::string(name) + "[" + std::to_string(k) + "]";
}

// The number of elements of product k's kernel.
inline double KernelSize(Cell cell, const Sizes& sizes, int k) {
  const double rows = sizes.InputRows(cell, k) + sizes.StateRows(cell, k);
  return rows * sizes.Columns(cell, k);
}

// The sizes of arrays that the loops over the steps share.
struct LoopSizes {
  LoopSizes(Cell cell, const Sizes& sizes)
      : batch(sizes.batch),
        steps(batch * sizes.time),
        h(sizes.outputs),
        c(HasC(cell) ? sizes.units : 0),
        resets(sizes.has_resets ? batch : 0),
        reset_steps(resets * sizes.time),
        elementwise(double(ElementwiseVectors(cell)) * sizes.units) {}
  double batch, steps, h, c, resets, reset_steps, elementwise;
};

template <typename Visitor>
void VisitArrays(Forward& entry, Visitor& visitor) {
  const Sizes& sizes = entry.sizes;
  const LoopSizes n(entry.cell, sizes);
  const int products = Products(entry.cell);
  visitor.Argument("lengths", entry.lengths, n.batch);
  visitor.Argument("resets", entry.resets, n.reset_steps);
  visitor.Argument("x", entry.x, n.steps * sizes.depth);
  for (int k = 0; k < products; k++) {
    visitor.Argument(Of("kernel", k), entry.kernel[k],
                     KernelSize(entry.cell, sizes, k));
    visitor.Argument(Of("bias", k), entry.bias[k],
                     ProductOf(entry.cell, k).bias * sizes.Columns(entry.cell, k));
  }
  visitor.Argument("elementwise", entry.settings.elementwise,
                   entry.has_elementwise * n.elementwise);
  visitor.Argument("h", entry.h, n.batch * n.h);
  visitor.Argument("c", entry.c, n.batch * n.c);
  visitor.Argument("reset_h", entry.reset_h, n.resets * n.h);
  visitor.Argument("reset_c", entry.reset_c, n.resets * n.c);

  visitor.Result("outputs", entry.outputs, n.steps * n.h);
  visitor.Result("last_h", entry.last_h, n.batch * n.h);
  visitor.Result("last_c", entry.last_c, n.batch * n.c);
  visitor.Result("new_c", entry.new_c, entry.has_new_c * n.steps * n.c);
  for (int k = 0; k < products; k++)
    visitor.Result(Of("zs", k), entry.zs[k],
                   entry.saves * n.steps * sizes.Columns(entry.cell, k));
  visitor.Result("saved_h", entry.saved_h, entry.saves * n.reset_steps * n.h);
  visitor.Result("saved_c", entry.saved_c, entry.saves * n.steps * n.c);
}

template <typename Visitor>
void VisitArrays(Backward& entry, Visitor& visitor) {
  const Sizes& sizes = entry.sizes;
  const LoopSizes n(entry.cell, sizes);
  const int products = Products(entry.cell);
  const bool has_first = !sizes.has_resets;
  visitor.Argument("lengths", entry.lengths, n.batch);
  visitor.Argument("resets", entry.resets, n.reset_steps);
  for (int k = 0; k < products; k++)
    visitor.Argument(Of("kernel", k), entry.kernel[k],
                     KernelSize(entry.cell, sizes, k));
  visitor.Argument("elementwise", entry.settings.elementwise,
                   entry.has_elementwise * n.elementwise);
  for (int k = 0; k < products; k++)
    visitor.Argument(Of("zs", k), entry.zs[k], n.steps * sizes.Columns(entry.cell, k));
  visitor.Argument("saved_h", entry.saved_h, n.reset_steps * n.h);
  visitor.Argument("outputs", entry.outputs, has_first * n.steps * n.h);
  visitor.Argument("saved_c", entry.saved_c, n.steps * n.c);
  visitor.Argument("h", entry.h, has_first * n.batch * n.h);
  visitor.Argument("ct_outputs", entry.ct_outputs, n.steps * n.h);
  visitor.Argument("ct_new_c", entry.ct_new_c, entry.has_new_c * n.steps * n.c);
  visitor.Argument("ct_last_h", entry.ct_last_h, n.batch * n.h);
  visitor.Argument("ct_last_c", entry.ct_last_c, n.batch * n.c);

  for (int k = 0; k < products; k++)
    visitor.Result(Of("ct_zs", k), entry.ct_zs[k],
                   n.steps * sizes.Columns(entry.cell, k));
  visitor.Result("operand", entry.operand,
                 HasOperand(entry.cell) * n.steps * sizes.units);
  visitor.Result("ct_h", entry.ct_h, n.batch * n.h);
  visitor.Result("ct_c", entry.ct_c, n.batch * n.c);
  visitor.Result("ct_reset_h", entry.ct_reset_h, n.resets * n.h);
  visitor.Result("ct_reset_c", entry.ct_reset_c, n.resets * n.c);
  visitor.Result("ct_elementwise", entry.ct_elementwise,
                 entry.has_elementwise * n.batch * n.elementwise);
}

template <typename Visitor>
void VisitArrays(Weights& entry, Visitor& visitor) {
  const double batch = entry.sizes.batch, steps = batch * entry.sizes.time;
  const double depth = entry.sizes.depth, units = entry.sizes.units;
  const double columns = entry.columns;
  visitor.Argument("lengths", entry.lengths, batch);
  visitor.Argument("x", entry.x, steps * depth);
  visitor.Argument("operand", entry.operand, steps * units);
  visitor.Argument("first", entry.first, entry.has_first * batch * units);
  visitor.Argument("ct_zs", entry.ct_zs, steps * columns);

  visitor.Result("ct_kernel", entry.ct_kernel, (depth + units) * columns);
  visitor.Result("ct_bias", entry.ct_bias, entry.has_bias * columns);
}

template <typename Visitor>
void VisitArrays(Inputs& entry, Visitor& visitor) {
  const double batch = entry.sizes.batch, steps = batch * entry.sizes.time;
  visitor.Argument("lengths", entry.lengths, batch);
  for (int k = 0; k < entry.products; k++) {
    visitor.Argument(Of("kernel", k), entry.kernel[k], entry.kernels[k]);
    visitor.Argument(Of("ct_zs", k), entry.ct_zs[k], steps * entry.columns[k]);
  }

  visitor.Result("ct_x", entry.ct_x, steps * entry.sizes.depth);
}

}  // namespace jaxrnn

#endif  // JAXRNN_LAYOUT_H_
