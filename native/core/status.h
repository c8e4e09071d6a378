// What happened to a keypoint: the same values as pixcli.keypoint_adjustment.alignment.Status, which explains
// them.
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
};

}  // namespace pixcli
