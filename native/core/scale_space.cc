#include "core/scale_space.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace pixcli {

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
                uint8_t* buffer, float* gain) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t width = boxes[4 * i + 2], height = boxes[4 * i + 3];
    const float* corner = map + static_cast<int64_t>(boxes[4 * i + 1]) * map_width + boxes[4 * i];
    float low = corner[0], high = corner[0];
    for (int32_t r = 0; r < height; ++r) {
      const float* source = corner + static_cast<int64_t>(r) * map_width;
      for (int32_t c = 0; c < width; ++c) {
        low = std::min(low, source[c]);
        high = std::max(high, source[c]);
      }
    }
    const float scale = high > low ? 255 / (high - low) : 0;
    gain[i] = (high - low) / 255;
    uint8_t* target = buffer + offset[i];
    for (int32_t r = 0; r < height; ++r) {
      const float* source = corner + static_cast<int64_t>(r) * map_width;
      for (int32_t c = 0; c < width; ++c) *target++ = static_cast<uint8_t>((source[c] - low) * scale + .5f);
    }
  }
}

}  // namespace pixcli
