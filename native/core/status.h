// What happened to a keypoint; bindings/featuremetric.cc says what each means and exports it to Python.
#pragma once

#include <cstdint>

namespace pixcli {

enum class Status : uint8_t {
  kUnmatched,
  kMoved,
  kRoot,
  kConstant,
  kOutOfBound,
  kOutOfImage,
  kWeakTexture,
  kLowCorrelation,
  kWorseScore,
  kDistorted,
  kInvalid,
  kUndone,
};

}  // namespace pixcli
