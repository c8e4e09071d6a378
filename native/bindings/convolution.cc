#include "bindings/convolution.h"

#include "bindings/arrays.h"
#include "bindings/poll.h"
#include "core/convolution.h"

namespace py = pybind11;

namespace pixcli {

namespace {

Array<float> ConvolveArray(const Array<float>& input, const Array<float>& weights, const Array<float>& bias,
                           int stride, int padding, bool rectify, int num_threads) {
  RequireShape(input, "input", {-1, -1, -1});
  RequireShape(weights, "weights", {-1, -1, input.shape(2), -1});
  Require(weights.shape(0) == weights.shape(1), "weights must be square");
  RequireShape(bias, "bias", {weights.shape(3)});
  Require(stride > 0 && padding >= 0, "stride must be positive, padding not negative");
  const auto extent = [&](py::ssize_t length) {
    return std::max<py::ssize_t>((length + 2 * py::ssize_t{padding} - weights.shape(0)) / stride + 1, 0);
  };
  const py::ssize_t height = extent(input.shape(0)), width = extent(input.shape(1));
  Array<float> out({height, width, weights.shape(3)});
  Convolution convolution = {};
  convolution.input = input.data();
  convolution.weights = weights.data();
  convolution.bias = bias.data();
  convolution.output = out.mutable_data();
  convolution.height = static_cast<int32_t>(input.shape(0));
  convolution.width = static_cast<int32_t>(input.shape(1));
  convolution.inputs = static_cast<int32_t>(input.shape(2));
  convolution.size = static_cast<int32_t>(weights.shape(0));
  convolution.stride = stride;
  convolution.padding = padding;
  convolution.out_width = static_cast<int32_t>(width);
  convolution.outputs = static_cast<int32_t>(weights.shape(3));
  convolution.rectify = rectify;
  PythonPoll poll(py::none{});
  {
    const py::gil_scoped_release release;
    Convolve(convolution, static_cast<int32_t>(height), num_threads, poll.Function());
  }
  poll.ThrowIfFailed();
  return out;
}

}  // namespace

void BindConvolution(py::module_& m) {
  m.def(
      "convolve", &ConvolveArray, py::arg("input"), py::arg("weights"), py::arg("bias"), py::arg("stride"),
      py::arg("padding"), py::arg("rectify"), py::arg("num_threads"),
      "(rows, columns, outputs) of input (height, width, inputs), weights (size, size, inputs, outputs) and "
      "bias (outputs,), all float32; zeros around the input; rectify: no negative outputs.");
}

}  // namespace pixcli
