// Scale-space levels of an image and the 8-bit patches cut from them.
#pragma once

#include <cstdint>

namespace pixcli {

// The taps of one axis of a separable filter that also resamples: output i is the sum over k of
// weight[i * taps + k] * input[first[i] + k].
struct AxisFilter {
  int32_t length, taps;
  const int32_t* first;
  const float* weight;
};

// out (rows.length, cols.length) from image (height, width), row-major.
void Resample(const float* image, int32_t width, const AxisFilter& rows, const AxisFilter& cols, float* out);

// Cuts n boxes (n, 4: column, row, width, height; inside the map) to 8 bits, each stretched to the whole range by its
// own gain and bias; gain[i] grey levels are one unit of patch i (0 where the patch is flat).
void CutPatches(const float* map, int32_t map_width, const int32_t* boxes, const int64_t* offset, int64_t n,
                uint8_t* buffer, float* gain);

}  // namespace pixcli
