#include "core/surface.h"

#include <vector>

#include "core/kernels.h"
#include "core/scratch.h"

namespace pixcli {
namespace {

// work(point, pairs, number of pairs, scratch) for each point.
template <class Patch, class Support, class Patches, class Work>
bool ForEachPoint(const PlaneKernel<Patch, Support>& kernel, const Patches& patches, const Support& support,
                  const SurfaceArrays& s, int num_threads, const Poll& poll, const Work& work) {
  return ParallelFor(s.num_points, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    Scratch scratch;
    std::vector<PlanePair<Patch>> pairs;
    for (int64_t p = begin; p < end; ++p) {
      pairs.clear();
      for (int64_t i = s.ptr[p]; i < s.ptr[p + 1]; ++i) {
        const bool same = i > s.ptr[p] && s.reference_patch[i] == s.reference_patch[i - 1] &&
                          s.spacing[i] == s.spacing[i - 1];
        pairs.push_back(
            {&s.views[s.view[i]], patches[s.patch[i]], patches[s.reference_patch[i]], s.spacing[i], !same});
      }
      const auto n = static_cast<int64_t>(pairs.size());
      work(p, pairs.data(), n, scratch.Take(kernel.scratch_size(pairs.data(), n, support)));
    }
  });
}

template <class Patch, class Support, class Patches>
bool Refine(const PlaneKernel<Patch, Support>& kernel, const Patches& patches, const Support& support,
            const SurfaceArrays& s, const SurfaceLimits& limits, int num_threads, const Poll& poll,
            SurfaceFit* fits) {
  return ForEachPoint(kernel, patches, support, s, num_threads, poll,
                      [&](int64_t p, const PlanePair<Patch>* pairs, int64_t n, char* scratch) {
                        kernel.refine(s.views[s.reference[p]], pairs, n, support, limits, scratch, &fits[p]);
                      });
}

template <class Patch, class Support, class Patches>
bool Measure(const PlaneKernel<Patch, Support>& kernel, const Patches& patches, const Support& support,
             const SurfaceArrays& s, const SurfaceLimits& limits, const Plane* planes, int num_threads,
             const Poll& poll, SurfaceShift* shifts) {
  return ForEachPoint(kernel, patches, support, s, num_threads, poll,
                      [&](int64_t p, const PlanePair<Patch>* pairs, int64_t n, char* scratch) {
                        kernel.measure(s.views[s.reference[p]], pairs, n, support, limits, planes[p], scratch,
                                       shifts + s.ptr[p]);
                      });
}

}  // namespace

bool RefineSurfaces(const PatchArrays& patches, const SupportView& support, const SurfaceArrays& surfaces,
                    const SurfaceLimits& limits, int num_threads, const Poll& poll, SurfaceFit* fits) {
  return Refine(CurrentKernels().surfaces, patches, support, surfaces, limits, num_threads, poll, fits);
}

bool RefineSurfaces(const FeatureArrays& patches, const FeatureSupport& support,
                    const SurfaceArrays& surfaces, const SurfaceLimits& limits, int num_threads,
                    const Poll& poll, SurfaceFit* fits) {
  return Refine(CurrentKernels().feature_surfaces, patches, support, surfaces, limits, num_threads, poll,
                fits);
}

bool MeasureShifts(const PatchArrays& patches, const SupportView& support, const SurfaceArrays& surfaces,
                   const SurfaceLimits& limits, const Plane* planes, int num_threads, const Poll& poll,
                   SurfaceShift* shifts) {
  return Measure(CurrentKernels().surfaces, patches, support, surfaces, limits, planes, num_threads, poll,
                 shifts);
}

bool MeasureShifts(const FeatureArrays& patches, const FeatureSupport& support, const SurfaceArrays& surfaces,
                   const SurfaceLimits& limits, const Plane* planes, int num_threads, const Poll& poll,
                   SurfaceShift* shifts) {
  return Measure(CurrentKernels().feature_surfaces, patches, support, surfaces, limits, planes, num_threads,
                 poll, shifts);
}

}  // namespace pixcli
