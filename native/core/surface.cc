#include "core/surface.h"

#include <vector>

#include "core/kernels.h"

namespace pixcli {
namespace {

// The pairs of one point and the memory to work on them; kept from point to point.
class Workspace {
 public:
  void Fill(const PatchArrays& patches, const SurfaceArrays& s, int64_t point, const SupportView& support) {
    pairs_.clear();
    for (int64_t i = s.ptr[point]; i < s.ptr[point + 1]; ++i) {
      const bool same = i > s.ptr[point] && s.reference_patch[i] == s.reference_patch[i - 1] &&
                        s.spacing[i] == s.spacing[i - 1];
      pairs_.push_back(
          {&s.views[s.view[i]], patches[s.patch[i]], patches[s.reference_patch[i]], s.spacing[i], !same});
    }
    const size_t size =
        CurrentKernels().surfaces.scratch_size(pairs_.data(), pairs_.size(), support) + kAlignment;
    if (memory_.size() < size) memory_.resize(size);
    const size_t misaligned = reinterpret_cast<uintptr_t>(memory_.data()) % kAlignment;
    scratch_ = memory_.data() + (misaligned ? kAlignment - misaligned : 0);
  }
  const SurfacePair* Pairs() const { return pairs_.data(); }
  int64_t Size() const { return pairs_.size(); }
  char* Scratch() const { return scratch_; }

 private:
  static constexpr size_t kAlignment = 64;
  std::vector<SurfacePair> pairs_;
  std::vector<char> memory_;
  char* scratch_ = nullptr;
};

template <class Work>
bool ForEachPoint(const PatchArrays& patches, const SupportView& support, const SurfaceArrays& surfaces,
                  int num_threads, const Poll& poll, Work&& work) {
  return ParallelFor(surfaces.num_points, 16, num_threads, poll, [&](int64_t begin, int64_t end, int) {
    Workspace workspace;
    for (int64_t p = begin; p < end; ++p) {
      workspace.Fill(patches, surfaces, p, support);
      work(p, workspace);
    }
  });
}

}  // namespace

bool RefineSurfaces(const PatchArrays& patches, const Support& support, const SurfaceArrays& surfaces,
                    const SurfaceLimits& limits, int num_threads, const Poll& poll, SurfaceFit* fits) {
  const SurfaceKernel& kernel = CurrentKernels().surfaces;
  const SupportView nodes = support.View();
  return ForEachPoint(patches, nodes, surfaces, num_threads, poll, [&](int64_t p, const Workspace& w) {
    kernel.refine(surfaces.views[surfaces.reference[p]], w.Pairs(), w.Size(), nodes, limits, w.Scratch(),
                  &fits[p]);
  });
}

bool MeasureShifts(const PatchArrays& patches, const Support& support, const SurfaceArrays& surfaces,
                   const SurfaceLimits& limits, const Plane* planes, int num_threads, const Poll& poll,
                   SurfaceShift* shifts) {
  const SurfaceKernel& kernel = CurrentKernels().surfaces;
  const SupportView nodes = support.View();
  return ForEachPoint(patches, nodes, surfaces, num_threads, poll, [&](int64_t p, const Workspace& w) {
    kernel.measure(surfaces.views[surfaces.reference[p]], w.Pairs(), w.Size(), nodes, limits, planes[p],
                   w.Scratch(), shifts + surfaces.ptr[p]);
  });
}

}  // namespace pixcli
