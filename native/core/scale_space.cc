#include "core/scale_space.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace pixcli {
namespace {

// The least and the largest sample of a box. Columns take turns: compilers do not vectorise one minimum.
std::pair<float, float> Range(const float* corner, int32_t stride, int32_t width, int32_t height) {
  constexpr int32_t kLanes = 8;
  float low[kLanes], high[kLanes];
  std::fill(low, low + kLanes, corner[0]);
  std::fill(high, high + kLanes, corner[0]);
  for (int32_t r = 0; r < height; ++r) {
    const float* source = corner + static_cast<int64_t>(r) * stride;
    int32_t c = 0;
    for (; c + kLanes <= width; c += kLanes) {
      for (int32_t k = 0; k < kLanes; ++k) {
        low[k] = std::min(low[k], source[c + k]);
        high[k] = std::max(high[k], source[c + k]);
      }
    }
    for (; c < width; ++c) {
      low[0] = std::min(low[0], source[c]);
      high[0] = std::max(high[0], source[c]);
    }
  }
  return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes)};
}

}  // namespace

void Resample(const float* image, int32_t width, const AxisFilter& rows, const AxisFilter& cols, float* out) {
  std::vector<float> row(width);
  for (int32_t r = 0; r < rows.length; ++r) {
    std::fill(row.begin(), row.end(), 0.f);
    for (int32_t k = 0; k < rows.taps; ++k) {
      const float w = rows.weight[static_cast<int64_t>(r) * rows.taps + k];
      const float* source = image + static_cast<int64_t>(rows.first[r] + k) * width;
      for (int32_t c = 0; c < width; ++c) row[c] += w * source[c];
    }
    float* target = out + static_cast<int64_t>(r) * cols.length;
    for (int32_t c = 0; c < cols.length; ++c) {
      const float* w = cols.weight + static_cast<int64_t>(c) * cols.taps;
      const float* source = row.data() + cols.first[c];
      float sum = 0;
      for (int32_t k = 0; k < cols.taps; ++k) sum += w[k] * source[k];
      target[c] = sum;
    }
  }
}

void CutPatches(const float* map, int32_t map_width, const int32_t* boxes, const int64_t* offset, int64_t n,
                uint8_t* buffer) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t width = boxes[4 * i + 2], height = boxes[4 * i + 3];
    const float* corner = map + static_cast<int64_t>(boxes[4 * i + 1]) * map_width + boxes[4 * i];
    const auto [low, high] = Range(corner, map_width, width, height);
    const float scale = high > low ? 255 / (high - low) : 0;
    uint8_t* target = buffer + offset[i];
    for (int32_t r = 0; r < height; ++r) {
      const float* source = corner + static_cast<int64_t>(r) * map_width;
      for (int32_t c = 0; c < width; ++c) *target++ = static_cast<uint8_t>((source[c] - low) * scale + .5f);
    }
  }
}

}  // namespace pixcli
