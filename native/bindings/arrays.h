// Conversions between NumPy and the structs of the core.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/featuremetric.h"
#include "core/interpolation.h"
#include "core/loss.h"

namespace pixcli {

// C-contiguous, of exactly this type: nothing is copied or converted in silence (use with noconvert()).
template <class T>
using Array = pybind11::array_t<T, pybind11::array::c_style>;

[[noreturn]] inline void Refuse(const std::string& message) { throw pybind11::value_error(message); }

inline void Require(bool condition, const char* message) {
  if (!condition) Refuse(message);
}

// "(3, n)", of lengths of which negative ones may be any.
inline std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i > 0 ? ", " : "") + (shape[i] < 0 ? "n" : std::to_string(shape[i]));
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline void RequireShape(const pybind11::array& array, const char* name, const std::vector<int64_t>& shape) {
  const std::vector<int64_t> given(array.shape(), array.shape() + array.ndim());
  bool fits = given.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || given[i] == shape[i];
  if (!fits)
    Refuse(std::string(name) + " must have the shape " + ShapeText(shape) + ", not " + ShapeText(given));
}

// What NumPy can see as a C-contiguous array of T without loss; in a shape of which negative lengths may be
// any.
template <class T>
Array<T> ArrayOf(const pybind11::object& value, const char* name, const std::vector<int64_t>& shape) {
  const Array<T> array = Array<T>::ensure(value);
  if (!array) {
    PyErr_Clear();
    const std::string wanted = pybind11::str(pybind11::dtype::of<T>());
    Refuse(std::string(name) + " must be an array of " + wanted);
  }
  RequireShape(array, name, shape);
  return array;
}

template <class T>
void RequireIndices(const Array<T>& indices, const char* name, int64_t limit, int64_t least = 0) {
  for (pybind11::ssize_t i = 0; i < indices.size(); ++i) {
    const int64_t index = indices.data()[i];
    if (index >= least && index < limit) continue;
    Refuse(std::string(name) + " must be from " + std::to_string(least) + " to " + std::to_string(limit - 1) +
           ": " + std::to_string(index) + " is out of range");
  }
}

// Where the items of each of n owners begin: rising from 0 to the number of items.
inline void RequirePointers(const Array<int64_t>& ptr, const char* name, int64_t items) {
  const int64_t n = ptr.size() - 1;
  bool rises = n >= 0 && ptr.data()[0] == 0 && ptr.data()[n] == items;
  for (int64_t i = 0; rises && i < n; ++i) rises = ptr.data()[i] <= ptr.data()[i + 1];
  if (!rises) Refuse(std::string(name) + " must rise from 0 to " + std::to_string(items));
}

inline Storage StorageOf(const pybind11::array& array) {
  Require((array.flags() & pybind11::array::c_style) != 0, "patches must be C-contiguous");
  if (array.dtype().kind() == 'f') {
    if (array.itemsize() == 2) return Storage::kHalf;
    if (array.itemsize() == 4) return Storage::kFloat;
    if (array.itemsize() == 8) return Storage::kDouble;
  }
  throw pybind11::value_error("patches must be float16, float32 or float64");
}

using Nodes = std::vector<std::array<double, 2>>;
// patches (m, height, width, channels), corners (m, 2), scales (m, 2), rows (n,): see FeatureLevel.
using Level = std::tuple<pybind11::array, Array<int32_t>, Array<double>, Array<int64_t>>;

inline FeatureLevel LevelOf(const Level& level) {
  const auto& [patches, corners, scales, rows] = level;
  RequireShape(patches, "patches", {-1, -1, -1, -1});
  const int64_t m = patches.shape(0);
  RequireShape(corners, "corners", {m, 2});
  RequireShape(scales, "scales", {m, 2});
  RequireShape(rows, "rows", {-1});
  RequireIndices(rows, "rows", m, -1);
  return {StorageOf(patches), patches.data(),   m,
          patches.shape(1),   patches.shape(2), patches.shape(3),
          corners.data(),     scales.data(),    rows.data()};
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
