#include "bindings/scale_space.h"

#include "bindings/arrays.h"
#include "core/scale_space.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

AxisFilter AxisFilterOf(const Array<int32_t>& first, const Array<float>& weight, py::ssize_t input_length) {
  Require(weight.ndim() == 2 && weight.shape(0) == first.size(), "weights must be (length, taps)");
  const int32_t taps = static_cast<int32_t>(weight.shape(1));
  for (py::ssize_t i = 0; i < first.size(); ++i) {
    Require(first.data()[i] >= 0 && first.data()[i] <= input_length - taps, "a tap lies outside the image");
  }
  return {static_cast<int32_t>(first.size()), taps, first.data(), weight.data()};
}

Array<float> ResampleArray(const Array<float>& image, const Array<int32_t>& first_row,
                           const Array<float>& row_weights, const Array<int32_t>& first_col,
                           const Array<float>& col_weights) {
  Require(image.ndim() == 2, "image must be (height, width)");
  const AxisFilter rows = AxisFilterOf(first_row, row_weights, image.shape(0));
  const AxisFilter cols = AxisFilterOf(first_col, col_weights, image.shape(1));
  Array<float> out({rows.length, cols.length});
  const float* source = image.data();
  float* target = out.mutable_data();
  const py::gil_scoped_release release;
  Resample(source, static_cast<int32_t>(image.shape(1)), rows, cols, target);
  return out;
}

void CutPatchesOfMap(const Array<float>& map, const Array<int32_t>& boxes, const Array<int64_t>& offset,
                     Array<uint8_t>& buffer) {
  Require(map.ndim() == 2 && boxes.ndim() == 2 && boxes.shape(1) == 4 && boxes.shape(0) == offset.size(),
          "map must be (height, width), boxes (n, 4), offset (n,)");
  const auto box = boxes.unchecked<2>();
  for (py::ssize_t i = 0; i < box.shape(0); ++i) {
    const int64_t column = box(i, 0), row = box(i, 1), width = box(i, 2), height = box(i, 3);
    const int64_t first = offset.data()[i];
    Require(column >= 0 && row >= 0 && width > 0 && height > 0 && column + width <= map.shape(1) &&
                row + height <= map.shape(0) && first >= 0 && first <= buffer.size() &&
                width * height <= buffer.size() - first,
            "boxes must stay inside the map, and their offset inside the buffer");
  }
  const float* source = map.data();
  uint8_t* target = buffer.mutable_data();
  const py::gil_scoped_release release;
  CutPatches(source, static_cast<int32_t>(map.shape(1)), boxes.data(), offset.data(), offset.size(), target);
}

}  // namespace

void BindScaleSpace(py::module_& m) {
  m.def("resample", &ResampleArray, "image"_a, "first_row"_a, "row_weights"_a, "first_col"_a, "col_weights"_a,
        "A separable filter of an image (height, width) that also resamples: row r of the result is the sum "
        "of row_weights (rows, taps) of the rows from first_row[r] on, and so are its columns.");
  m.def("cut_patches", &CutPatchesOfMap, "map"_a, "boxes"_a, "offset"_a, "buffer"_a.noconvert(),
        "Writes boxes (n, 4) column row width height of a map (height, width) to the buffer, each from its "
        "offset (n,) on, stretched to 8 bits.");
}

}  // namespace pixcli
