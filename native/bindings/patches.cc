#include "bindings/patches.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

Comparison ComparisonOf(const std::string& name) {
  if (name == "correlation") return Comparison::kCorrelation;
  if (name == "distance") return Comparison::kDistance;
  if (name == "cosine") return Comparison::kCosine;
  throw py::value_error("comparison must be correlation, distance or cosine");
}

FeatureType FeatureTypeOf(const py::array& buffer) {
  const char kind = buffer.dtype().kind();
  const py::ssize_t bytes = buffer.itemsize();
  if (kind == 'f' && bytes == 4) return FeatureType::kFloat;
  if (kind == 'f' && bytes == 2) return FeatureType::kHalf;
  if (kind == 'i' && bytes == 1) return FeatureType::kInt8;
  if (kind == 'u' && bytes == 1) return FeatureType::kInt4;
  throw py::value_error("buffer must be float32, float16, int8 or, for pairs of 4 bits, uint8");
}

}  // namespace

Patches::Patches(const py::array& buffer, const py::object& offset, const py::object& size,
                 const py::object& origin, const py::object& gains,
                 const std::optional<std::string>& comparison)
    : buffer_(buffer),
      offset_(ArrayOf<int64_t>(offset, "offset", {-1})),
      size_(ArrayOf<int32_t>(size, "size", {offset_.size(), 2})),
      origin_(ArrayOf<double>(origin, "origin", {offset_.size(), 3})) {
  const int64_t n = num_patches();
  Require((buffer_.flags() & py::array::c_style) != 0, "buffer must be C-contiguous");
  if (!comparison) {
    Require(Array<uint8_t>::check_(buffer_), "buffer must be uint8 for grey patches");
    RequireShape(buffer_, "buffer", {-1});
    arrays_ = PatchArrays{static_cast<const uint8_t*>(buffer_.data()), offset_.data(), size_.data(),
                          origin_.data()};
  } else {
    comparison_ = ComparisonOf(*comparison);
    RequireShape(buffer_, "buffer", {-1, -1});
    const FeatureType type = FeatureTypeOf(buffer_);
    int64_t channels = buffer_.shape(1);
    if (type == FeatureType::kInt8 || type == FeatureType::kInt4) {
      gains_ = ArrayOf<float>(gains, "gains", {n, type == FeatureType::kInt8 ? channels : -1});
      if (type == FeatureType::kInt4) channels = gains_->shape(1);
      Require(type == FeatureType::kInt8 || (channels + 1) / 2 == buffer_.shape(1),
              "gains must have two channels for each byte of the buffer");
    }
    Require(channels > 0 && channels <= INT32_MAX, "buffer must have channels");
    arrays_ = FeatureArrays{buffer_.data(), gains_ ? gains_->data() : nullptr,
                            type,           static_cast<int32_t>(channels),
                            offset_.data(), size_.data(),
                            origin_.data()};
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = offset_.data()[i], samples = buffer_.shape(0);
    const int64_t width = size_.data()[2 * i], height = size_.data()[2 * i + 1];
    // In this order nothing overflows.
    if (first < 0 || first > samples || width < 0 || height < 0 || width * height > samples - first)
      Refuse("offset and size must stay inside the buffer: patch " + std::to_string(i) + " leaves it");
  }
}

void BindPatches(py::module_& m) {
  py::class_<Patches>(
      m, "PatchArrays",
      "Patches of grey images or, where a comparison is named, of feature maps.\n\n"
      "Args:\n"
      "    buffer: (bytes,) uint8, or samples (n, channels) of float32, float16, int8 or, two "
      "channels a byte, uint8.\n"
      "    offset: (p,) int64, the first sample of each patch in the buffer.\n"
      "    size: (p, 2) int32, width and height in samples.\n"
      "    origin: (p, 3) float64, x and y of the first sample and the pixels from one to the "
      "next.\n"
      "    gains: (p, channels) float32 that integers are multiplied by.\n"
      "    comparison: correlation, distance or cosine.")
      .def(py::init<const py::array&, const py::object&, const py::object&, const py::object&,
                    const py::object&, const std::optional<std::string>&>(),
           "buffer"_a.noconvert(), "offset"_a, "size"_a, "origin"_a, py::kw_only(), "gains"_a = py::none(),
           "comparison"_a = py::none())
      .def("__len__", &Patches::num_patches);
}

}  // namespace pixcli
