#include "bindings/features.h"

#include <optional>

#include "bindings/alignment.h"
#include "bindings/arrays.h"
#include "bindings/poll.h"
#include "core/convolution.h"
#include "core/features.h"

namespace py = pybind11;

namespace pixcli {

FeatureArrays FeaturesOf(const py::array& buffer, const std::optional<Array<float>>& gains,
                         const Array<int64_t>& offset, const Array<int32_t>& size,
                         const Array<double>& origin) {
  Require((buffer.flags() & py::array::c_style) != 0 && buffer.ndim() == 2 && buffer.shape(1) > 0,
          "the buffer must be (samples, channels) and C-contiguous");
  FeatureType type;
  if (buffer.dtype().kind() == 'f' && buffer.itemsize() == 4) {
    type = FeatureType::kFloat;
  } else if (buffer.dtype().kind() == 'f' && buffer.itemsize() == 2) {
    type = FeatureType::kHalf;
  } else if (buffer.dtype().kind() == 'i' && buffer.itemsize() == 1) {
    type = FeatureType::kInt8;
  } else if (buffer.dtype().kind() == 'u' && buffer.itemsize() == 1) {
    type = FeatureType::kInt4;
  } else {
    throw py::type_error("features must be float32, float16, int8 or, for pairs of 4 bits, uint8");
  }
  const bool integers = type == FeatureType::kInt8 || type == FeatureType::kInt4;
  const py::ssize_t n = offset.size();
  py::ssize_t channels = buffer.shape(1);
  if (type == FeatureType::kInt4) {
    channels = gains && gains->ndim() == 2 ? gains->shape(1) : 0;
    Require((channels + 1) / 2 == buffer.shape(1), "pairs of 4 bits need gains (p, channels)");
  }
  Require(size.size() == 2 * n && origin.size() == 3 * n,
          "patches need offset (p,), size (p, 2), origin (p, 3)");
  Require(!integers || (gains && gains->size() == n * channels), "integers need gains (p, channels)");
  for (py::ssize_t i = 0; i < n; ++i) {
    const int64_t area = static_cast<int64_t>(size.data()[2 * i]) * size.data()[2 * i + 1];
    Require(offset.data()[i] >= 0 && area >= 0 && offset.data()[i] + area <= buffer.shape(0),
            "a patch leaves the buffer");
  }
  return {buffer.data(), integers ? gains->data() : nullptr,
          type,          static_cast<int32_t>(channels),
          offset.data(), size.data(),
          origin.data()};
}

Comparison ComparisonOf(const std::string& name) {
  if (name == "correlation") return Comparison::kCorrelation;
  if (name == "distance") return Comparison::kDistance;
  if (name == "cosine") return Comparison::kCosine;
  throw py::value_error("comparison must be correlation, distance or cosine");
}

namespace {

Array<Alignment> AlignFeatureArrays(const py::array& buffer, const std::optional<Array<float>>& gains,
                                    const std::string& comparison, const Array<int64_t>& offset,
                                    const Array<int32_t>& size, const Array<double>& origin, int radius,
                                    double window, const Array<int32_t>& template_patch,
                                    const Array<double>& template_xy, const Array<double>& template_spacing,
                                    const Array<int64_t>& job_ptr, const Array<int32_t>& job_patch,
                                    const Array<double>& starts, int max_iterations, double max_excursion,
                                    double step_tolerance, bool translation, int num_threads,
                                    const py::object& progress) {
  const FeatureArrays patches = FeaturesOf(buffer, gains, offset, size, origin);
  const TemplateArrays templates =
      TemplatesOf(template_patch, template_xy, template_spacing, nullptr, job_ptr, job_patch, offset.size());
  Array<Alignment> alignment(job_patch.size());
  const JobArrays jobs = JobsOf(job_patch, starts, offset.size(), alignment.mutable_data());
  const Support support(radius, window);
  const Comparison compared = ComparisonOf(comparison);
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    AlignFeatures(patches, {support.View(), compared}, templates, jobs,
                  {max_iterations, max_excursion, step_tolerance, translation}, num_threads, poll.Function());
  }
  poll.ThrowIfFailed();
  return alignment;
}

Array<float> ConvolveArray(const Array<float>& input, const Array<float>& weights, const Array<float>& bias,
                           int stride, int padding, bool rectify, int num_threads) {
  Require(input.ndim() == 3 && weights.ndim() == 4 && weights.shape(0) == weights.shape(1) &&
              weights.shape(2) == input.shape(2) && bias.size() == weights.shape(3),
          "input must be (height, width, inputs), weights (size, size, inputs, outputs), bias (outputs,)");
  Require(stride > 0 && padding >= 0, "stride must be positive, padding not negative");
  const auto extent = [&](py::ssize_t length) {
    return std::max<py::ssize_t>((length + 2 * padding - weights.shape(0)) / stride + 1, 0);
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

void BindFeatures(py::module_& m) {
  m.def("convolve", &ConvolveArray, py::arg("input"), py::arg("weights"), py::arg("bias"), py::arg("stride"),
        py::arg("padding"), py::arg("rectify"), py::arg("num_threads"));
  m.def("align_features", &AlignFeatureArrays, py::arg("buffer"), py::arg("gains").none(true),
        py::arg("comparison"), py::arg("offset"), py::arg("size"), py::arg("origin"), py::arg("radius"),
        py::arg("window"), py::arg("template_patch"), py::arg("template_xy"), py::arg("template_spacing"),
        py::arg("job_ptr"), py::arg("job_patch"), py::arg("starts"), py::arg("max_iterations"),
        py::arg("max_excursion"), py::arg("step_tolerance"), py::arg("translation"), py::arg("num_threads"),
        py::arg("progress") = py::none());
}

}  // namespace pixcli
