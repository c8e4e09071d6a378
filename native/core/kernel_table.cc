// The kernels of the instruction set that this file is compiled for.
#include "core/kernels.h"

namespace pixcli::PIXCLI_ISA {

extern const AlignmentKernel kAlignmentKernel;
extern const ConvolutionKernel kConvolutionKernel;
extern const DenseSiftKernel kDenseSiftKernel;
extern const FeatureKernel kFeatureKernel;
extern const InnerProductKernel kInnerProductKernel;
extern const InterpolationKernel kInterpolationKernel;
extern const SurfaceKernel kSurfaceKernel;
extern const FeatureSurfaceKernel kFeatureSurfaceKernel;

const Kernels kKernels = {kAlignmentKernel,    kConvolutionKernel,   kDenseSiftKernel, kFeatureKernel,
                          kInnerProductKernel, kInterpolationKernel, kSurfaceKernel,   kFeatureSurfaceKernel};

}  // namespace pixcli::PIXCLI_ISA
