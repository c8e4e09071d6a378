// Patches as Python hands them over: of grey images or of feature maps.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <variant>

#include "bindings/arrays.h"
#include "core/features.h"

namespace pixcli {

// Keeps the arrays that it points into. All is checked when it is made.
class Patches {
 public:
  // buffer: (bytes,) uint8 without a comparison, else samples (n, channels) of features as FeatureType has
  // them. offset (p,) in samples, size (p, 2) width and height, origin (p, 3) x and y of the first sample and
  // pitch, gains (p, channels) of integers.
  Patches(const pybind11::array& buffer, const pybind11::object& offset, const pybind11::object& size,
          const pybind11::object& origin, const pybind11::object& gains,
          const std::optional<std::string>& comparison);

  int64_t num_patches() const { return offset_.size(); }
  bool is_grey() const { return std::holds_alternative<PatchArrays>(arrays_); }
  const PatchArrays& grey() const { return std::get<PatchArrays>(arrays_); }
  const FeatureArrays& features() const { return std::get<FeatureArrays>(arrays_); }
  Comparison comparison() const { return comparison_; }

 private:
  pybind11::array buffer_;
  Array<int64_t> offset_;
  Array<int32_t> size_;
  Array<double> origin_;
  std::optional<Array<float>> gains_;
  std::variant<PatchArrays, FeatureArrays> arrays_;
  Comparison comparison_ = Comparison::kCorrelation;
};

void BindPatches(pybind11::module_& m);

}  // namespace pixcli
