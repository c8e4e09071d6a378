// The part of dense SIFT that is compiled once for each instruction set.
#pragma once

#include <stdint.h>

namespace pixcli {

// Everything that a strip of rows needs. A bin's window is the triangle of half-width bin_size around its
// centre; the four centres along an axis lie at (k - 1.5) bin_size from the pixel, so that one smoothed
// plane, read at pixel + first + k bin_size, gives all four.
struct DenseSiftStrip {
  const float* image;  // (height, width)
  int64_t height, width;
  int bin_size;
  int first;            // floor(-1.5 bin_size)
  int num_taps;         // Of the window: offsets 1 - bin_size to num_taps - bin_size.
  const float* taps;    // (num_taps)
  const float* weight;  // (16) of the bins
  bool rootsift, half;
  int64_t row_begin, row_end;
  // Scratch, rows of width + 3 bin_size columns of 8 orientations, except `histogram`: width + 5 bin_size
  // + 1.
  float* histogram;  // One row, zeros on both sides of the image.
  float* across;     // row_end - row_begin + 2 reach rows, reach = bin_size - 1 - first
  float* smooth;     // row_end - row_begin + 3 bin_size rows
  void* out;         // (height, width, 128)
};

struct DenseSiftKernel {
  void (*describe_rows)(const DenseSiftStrip& strip);
};

}  // namespace pixcli
