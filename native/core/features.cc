#include "core/features.h"

#include <cmath>

#include "core/kernels.h"
#include "core/scratch.h"

namespace pixcli {
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

bool AlignFeatures(const FeatureArrays& patches, const FeatureSupport& support,
                   const TemplateArrays& templates, const JobArrays& jobs, const AlignmentLimits& limits,
                   int num_threads, const Poll& poll) {
  const FeatureKernel& kernel = CurrentKernels().features;
  return ParallelFor(templates.n, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    Scratch for_template, for_jobs;
    for (int64_t t = begin; t < end; ++t) {
      const FeaturePatch root = patches[templates.patch[t]];
      char* tmpl = for_template.Take(kernel.template_size(root, support));
      const Outcome made = kernel.make_template(root, support, templates.xy[2 * t], templates.xy[2 * t + 1],
                                                templates.spacing[t], tmpl);
      for (int64_t j = templates.job_ptr[t]; j < templates.job_ptr[t + 1]; ++j) {
        const Warp* starts = jobs.starts + j * jobs.num_starts;
        if (made == Outcome::kConverged) {
          const FeaturePatch patch = patches[jobs.patch[j]];
          kernel.align(patch, support, tmpl, limits, starts, jobs.num_starts,
                       for_jobs.Take(kernel.work_size(patch, support)), &jobs.alignment[j]);
        } else {
          jobs.alignment[j] = {starts[0], -1, -1, NAN, NAN, NAN, 0, static_cast<int32_t>(made)};
        }
      }
    }
  });
}

}  // namespace pixcli
