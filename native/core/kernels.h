// All kernels of one instruction set, and the choice between instruction sets.
//
// To add a kernel: a struct of function pointers in core/NAME_kernel.h, the functions and a constant of that
// struct in core/NAME_kernel.cc, which native/meson.build lists; then a member here and its constant in
// core/kernel_table.cc.
#pragma once

#include "core/alignment_kernel.h"
#include "core/convolution_kernel.h"
#include "core/dense_sift_kernel.h"
#include "core/feature_kernel.h"
#include "core/inner_product_kernel.h"
#include "core/interpolation_kernel.h"
#include "core/surface_kernel.h"

namespace pixcli {

struct Kernels {
  const AlignmentKernel& alignment;
  const ConvolutionKernel& convolution;
  const DenseSiftKernel& dense_sift;
  const FeatureKernel& features;
  const InnerProductKernel& inner_products;
  const InterpolationKernel& interpolation;
  const SurfaceKernel& surfaces;
  const FeatureSurfaceKernel& feature_surfaces;
};

// Of CurrentIsa().
const Kernels& CurrentKernels();
// Those that every machine runs: a second opinion on the others.
const Kernels& PortableKernels();

namespace baseline {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}

}  // namespace pixcli
