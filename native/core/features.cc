#include "core/features.h"

#include <cmath>

#include "core/kernels.h"

namespace pixcli {
namespace {

// Aligned memory that grows and is kept.
class Scratch {
 public:
  char* Take(int64_t size) {
    if (static_cast<int64_t>(memory_.size()) < size + kAlignment) memory_.resize(size + kAlignment);
    const size_t misaligned = reinterpret_cast<uintptr_t>(memory_.data()) % kAlignment;
    return memory_.data() + (misaligned ? kAlignment - misaligned : 0);
  }

 private:
  static constexpr int64_t kAlignment = 64;
  std::vector<char> memory_;
};

// work(point, pairs, scratch) for each point.
template <class Work>
bool ForEachPoint(const FeatureArrays& patches, const FeatureSupport& support, const SurfaceArrays& s,
                  int num_threads, const Poll& poll, Work&& work) {
  const FeatureSurfaceKernel& kernel = CurrentKernels().feature_surfaces;
  return ParallelFor(s.num_points, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    Scratch scratch;
    std::vector<FeaturePair> pairs;
    for (int64_t p = begin; p < end; ++p) {
      pairs.clear();
      for (int64_t i = s.ptr[p]; i < s.ptr[p + 1]; ++i) {
        const bool same = i > s.ptr[p] && s.reference_patch[i] == s.reference_patch[i - 1] &&
                          s.spacing[i] == s.spacing[i - 1];
        pairs.push_back(
            {&s.views[s.view[i]], patches[s.patch[i]], patches[s.reference_patch[i]], s.spacing[i], !same});
      }
      work(p, pairs, scratch.Take(kernel.scratch_size(pairs.data(), pairs.size(), support)));
    }
  });
}

}  // namespace

FeaturePatch FeatureArrays::operator[](int64_t i) const {
  const int64_t c = channels, of_sample[] = {4 * c, 2 * c, c, (c + 1) / 2};
  const int64_t bytes = of_sample[static_cast<int>(type)] * offset[i];
  return {static_cast<const char*>(buffer) + bytes,
          gains == nullptr ? nullptr : gains + i * channels,
          type,
          size[2 * i],
          size[2 * i + 1],
          channels,
          origin[3 * i],
          origin[3 * i + 1],
          origin[3 * i + 2]};
}

bool AlignFeatures(const FeatureArrays& patches, const Support& support, Comparison comparison,
                   const TemplateArrays& templates, const JobArrays& jobs, const AlignmentLimits& limits,
                   int num_threads, const Poll& poll) {
  const FeatureKernel& kernel = CurrentKernels().features;
  const FeatureSupport nodes{support.View(), comparison};
  return ParallelFor(templates.n, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    Scratch for_template, for_jobs;
    for (int64_t t = begin; t < end; ++t) {
      const FeaturePatch root = patches[templates.patch[t]];
      char* tmpl = for_template.Take(kernel.template_size(root, nodes));
      const Outcome made = kernel.make_template(root, nodes, templates.xy[2 * t], templates.xy[2 * t + 1],
                                                templates.spacing[t], tmpl);
      for (int64_t j = templates.job_ptr[t]; j < templates.job_ptr[t + 1]; ++j) {
        const Warp* starts = jobs.starts + j * jobs.num_starts;
        if (made == Outcome::kConverged) {
          const FeaturePatch patch = patches[jobs.patch[j]];
          kernel.align(patch, nodes, tmpl, limits, starts, jobs.num_starts,
                       for_jobs.Take(kernel.work_size(patch, nodes)), &jobs.alignment[j]);
        } else {
          jobs.alignment[j] = {starts[0], -1, -1, NAN, NAN, NAN, 0, static_cast<int32_t>(made)};
        }
      }
    }
  });
}

bool RefineFeatureSurfaces(const FeatureArrays& patches, const Support& support, Comparison comparison,
                           const SurfaceArrays& surfaces, const SurfaceLimits& limits, int num_threads,
                           const Poll& poll, SurfaceFit* fits) {
  const FeatureSupport nodes{support.View(), comparison};
  return ForEachPoint(patches, nodes, surfaces, num_threads, poll,
                      [&](int64_t p, const std::vector<FeaturePair>& pairs, char* scratch) {
                        CurrentKernels().feature_surfaces.refine(surfaces.views[surfaces.reference[p]],
                                                                 pairs.data(), pairs.size(), nodes, limits,
                                                                 scratch, &fits[p]);
                      });
}

bool MeasureFeatureShifts(const FeatureArrays& patches, const Support& support, Comparison comparison,
                          const SurfaceArrays& surfaces, const SurfaceLimits& limits, const Plane* planes,
                          int num_threads, const Poll& poll, SurfaceShift* shifts) {
  const FeatureSupport nodes{support.View(), comparison};
  return ForEachPoint(patches, nodes, surfaces, num_threads, poll,
                      [&](int64_t p, const std::vector<FeaturePair>& pairs, char* scratch) {
                        CurrentKernels().feature_surfaces.measure(
                            surfaces.views[surfaces.reference[p]], pairs.data(), pairs.size(), nodes, limits,
                            planes[p], scratch, shifts + surfaces.ptr[p]);
                      });
}

}  // namespace pixcli
