// One alignment of a patch to a template, compiled for every instruction set. Plain data only.
#pragma once

#include <stdint.h>

namespace pixcli {

// 8-bit samples of one scale-space level. Sample (0, 0) lies at (x0, y0) in the image, the next pitch pixels
// on.
struct PatchView {
  const uint8_t* data;
  int32_t width, height;
  double x0, y0, pitch;
};

// The nodes of a support in units of its step, padded to a multiple of kNodeLanes with weight 0. The weights
// sum to 1; `independent` is the number of samples they stand for (their sum if the largest were 1), the
// moments are the weighted means of x^2 and of x^2 (x^2 + y^2).
constexpr int kNodeLanes = 16;
constexpr int kMaxNodes = 1024;
struct SupportView {
  const float *x, *y, *weight;
  int32_t num_nodes, num_padded;
  float radius, independent, second_moment, fourth_moment;
};

// A template: the zero-mean, unit-deviation samples around the root and what inverse-compositional
// Gauss-Newton needs of them: the gradients by the parameters (2 of position, 4 of the linear map, 2 of
// perspective, the latter in units of nodes), with their parts along a constant and along the template itself
// taken out, which makes gain and bias free.
constexpr int kNumParams = 8;
struct Template {
  alignas(64) float value[kMaxNodes];
  alignas(64) float jacobian[kNumParams][kMaxNodes];
  float deviation;               // of the samples before normalisation, in units of the patch
  double spacing;                // of the nodes, in pixels of the root's image
  double perspective_deviation;  // prior standard deviation of h, in 1/pixels of the root's image
};

struct AlignmentLimits {
  int32_t max_iterations;
  double max_excursion;   // pixels from the start at which an alignment is given up
  double step_tolerance;  // pixels
  bool translation;       // refine the position only
};

enum class Outcome : int32_t { kConverged = 0, kOutside = 1, kFlat = 2, kDiverged = 3 };

// The local warp u -> (x, y) + A u / (1 + h u) from template pixels to the image.
struct Warp {
  double x, y, a11, a12, a21, a22, h1, h2;
};

// Where an alignment ended: its correlation there and at the first start, and the covariance of the position
// as predicted from the residual (pixels squared).
struct Alignment {
  Warp warp;
  double correlation, initial_correlation;
  double cov_xx, cov_xy, cov_yy;
  int32_t iterations;
  int32_t outcome;  // an Outcome
};

struct AlignmentKernel {
  // Samples the template around (x, y) of the root's patch; its spacing and prior are given in `out`.
  Outcome (*make_template)(const PatchView& patch, const SupportView& support, double x, double y,
                           Template* out);
  // Aligns a patch to a template, from the start of highest correlation; starts beyond the patch are passed
  // over.
  void (*align)(const PatchView& patch, const SupportView& support, const Template& tmpl,
                const AlignmentLimits& limits, const Warp* starts, int num_starts, Alignment* alignment);
};

}  // namespace pixcli
