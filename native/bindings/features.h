#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bindings/arrays.h"
#include "core/features.h"

namespace pixcli {

// Patches of (samples, channels) of float32, float16 or int8, the latter with gains (p, channels), checked.
FeatureArrays FeaturesOf(const pybind11::array& buffer, const std::optional<Array<float>>& gains,
                         const Array<int64_t>& offset, const Array<int32_t>& size,
                         const Array<double>& origin);
// correlation, distance or cosine.
Comparison ComparisonOf(const std::string& name);

void BindFeatures(pybind11::module_& m);

}  // namespace pixcli
