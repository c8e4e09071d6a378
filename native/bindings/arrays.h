// Conversions between NumPy and the structs of the core.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "core/interpolation.h"
#include "core/loss.h"

namespace pixcli {

// C-contiguous, of exactly this type: nothing is copied or converted in silence (use with noconvert()).
template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

inline void Require(bool condition, const char* message) {
  if (!condition) throw pybind11::value_error(message);
}

inline Storage StorageOf(const pybind11::array& array) {
  if (!(array.flags() & pybind11::array::c_style))
    throw pybind11::value_error("patches must be C-contiguous");
  if (array.dtype().kind() == 'f') {
    if (array.itemsize() == 2) return Storage::kHalf;
    if (array.itemsize() == 4) return Storage::kFloat;
    if (array.itemsize() == 8) return Storage::kDouble;
  }
  throw pybind11::type_error("patches must be float16, float32 or float64");
}

inline InterpolationOptions MakeInterpolation(const std::vector<std::array<double, 2>>& nodes,
                                              const std::string& mode, bool l2_normalize,
                                              bool ncc_normalize) {
  if (mode != "bicubic" && mode != "bilinear")
    throw pybind11::value_error("mode must be bicubic or bilinear");
  if (nodes.empty()) throw pybind11::value_error("at least one node is needed");
  InterpolationOptions options{mode == "bilinear", l2_normalize, ncc_normalize, {}};
  for (const auto& node : nodes) options.nodes.insert(options.nodes.end(), node.begin(), node.end());
  return options;
}

inline LossType LossNamed(const std::string& name) {
  const std::pair<const char*, LossType> losses[] = {
      {"trivial", LossType::kTrivial}, {"cauchy", LossType::kCauchy}, {"huber", LossType::kHuber},
      {"soft_l1", LossType::kSoftL1},  {"arctan", LossType::kArctan}, {"tukey", LossType::kTukey}};
  for (const auto& [known, type] : losses) {
    if (name == known) return type;
  }
  throw pybind11::value_error("unknown loss " + name);
}

template <class T, class U>
Array<T> ToArray(const std::vector<U>& values, std::vector<pybind11::ssize_t> shape) {
  static_assert(sizeof(T) == sizeof(U));
  return Array<T>(std::move(shape), reinterpret_cast<const T*>(values.data()));
}

}  // namespace pixcli
