#include "core/alignment.h"

#include <cmath>
#include <memory>
#include <stdexcept>

#include "core/kernels.h"

namespace pixcli {
Support::Support(int radius, double window) : radius_(static_cast<float>(radius)) {
  const int side = 2 * radius + 1;
  num_nodes_ = side * side;
  num_padded_ = (num_nodes_ + kNodeLanes - 1) / kNodeLanes * kNodeLanes;
  if (radius < 1 || num_padded_ > kMaxNodes)
    throw std::invalid_argument("a support's radius is 1 to 15 nodes");
  storage_.assign(3 * num_padded_ + kNodeLanes, 0.f);
  const size_t misaligned = reinterpret_cast<uintptr_t>(storage_.data()) % (kNodeLanes * sizeof(float));
  float* x = storage_.data() + (misaligned ? kNodeLanes - misaligned / sizeof(float) : 0);
  aligned_ = x;
  float *y = x + num_padded_, *weight = y + num_padded_;
  double sum = 0;
  for (int r = -radius, k = 0; r <= radius; ++r) {
    for (int c = -radius; c <= radius; ++c, ++k) {
      x[k] = static_cast<float>(c);
      y[k] = static_cast<float>(r);
      sum += weight[k] =
          static_cast<float>(std::exp(-(r * r + c * c) / (2 * window * window * radius * radius)));
    }
  }
  independent_ = static_cast<float>(sum);
  double second = 0, fourth = 0;
  for (int k = 0; k < num_nodes_; ++k) {
    weight[k] = static_cast<float>(weight[k] / sum);
    second += weight[k] * x[k] * x[k];
    fourth += weight[k] * x[k] * x[k] * (x[k] * x[k] + y[k] * y[k]);
  }
  second_moment_ = static_cast<float>(second);
  fourth_moment_ = static_cast<float>(fourth);
}

SupportView Support::View() const {
  return {aligned_,
          aligned_ + num_padded_,
          aligned_ + 2 * num_padded_,
          num_nodes_,
          num_padded_,
          radius_,
          independent_,
          second_moment_,
          fourth_moment_};
}

bool AlignPatches(const PatchArrays& patches, const Support& support, const TemplateArrays& templates,
                  const JobArrays& jobs, const AlignmentLimits& limits, int num_threads, const Poll& poll) {
  const AlignmentKernel& kernel = CurrentKernels().alignment;
  const SupportView nodes = support.View();
  return ParallelFor(templates.n, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    const auto tmpl = std::make_unique<Template>();
    for (int64_t t = begin; t < end; ++t) {
      tmpl->spacing = templates.spacing[t];
      tmpl->perspective_deviation = templates.perspective_deviation[t];
      const Outcome made = kernel.make_template(patches[templates.patch[t]], nodes, templates.xy[2 * t],
                                                templates.xy[2 * t + 1], tmpl.get());
      for (int64_t j = templates.job_ptr[t]; j < templates.job_ptr[t + 1]; ++j) {
        if (made == Outcome::kConverged) {
          kernel.align(patches[jobs.patch[j]], nodes, *tmpl, limits, jobs.starts + j * jobs.num_starts,
                       jobs.num_starts, &jobs.alignment[j]);
        } else {
          jobs.alignment[j] = {jobs.starts[j * jobs.num_starts], -1, -1, NAN, NAN, NAN, 0,
                               static_cast<int32_t>(made)};
        }
      }
    }
  });
}

}  // namespace pixcli
