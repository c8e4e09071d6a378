// Depth, normal and shifts of many points. See core/surface_kernel.h for the geometry.
#pragma once

#include <cstdint>

#include "core/alignment.h"
#include "core/features.h"
#include "core/parallel.h"
#include "core/surface_kernel.h"

namespace pixcli {

// Point p is seen in the views of the pairs ptr[p]:ptr[p+1], and compared with its view reference[p]. Pairs
// of the same reference patch and spacing that follow each other share a template.
struct SurfaceArrays {
  int64_t num_points;
  const SurfaceView* views;
  const int32_t* reference;
  const int64_t* ptr;
  const int32_t* view;
  const int32_t* patch;
  const int32_t* reference_patch;
  const double* spacing;
};

// Refines fits[p].plane of each point. Returns false if the poll stopped it. Results of all functions do not
// depend on the number of threads.
bool RefineSurfaces(const PatchArrays& patches, const SupportView& support, const SurfaceArrays& surfaces,
                    const SurfaceLimits& limits, int num_threads, const Poll& poll, SurfaceFit* fits);
bool RefineSurfaces(const FeatureArrays& patches, const FeatureSupport& support,
                    const SurfaceArrays& surfaces, const SurfaceLimits& limits, int num_threads,
                    const Poll& poll, SurfaceFit* fits);

// Measures a shift for each pair.
bool MeasureShifts(const PatchArrays& patches, const SupportView& support, const SurfaceArrays& surfaces,
                   const SurfaceLimits& limits, const Plane* planes, int num_threads, const Poll& poll,
                   SurfaceShift* shifts);
bool MeasureShifts(const FeatureArrays& patches, const FeatureSupport& support, const SurfaceArrays& surfaces,
                   const SurfaceLimits& limits, const Plane* planes, int num_threads, const Poll& poll,
                   SurfaceShift* shifts);

}  // namespace pixcli
