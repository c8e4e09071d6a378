// The module pixcli._costs: cost functions for pyceres. Import pyceres first: it registers
// ceres::CostFunction.
#include <memory>

#include "bindings/arrays.h"
#include "costs/featuremetric_cost.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

using Pair = std::array<double, 2>;
using Nodes = std::vector<Pair>;

std::unique_ptr<SampledPatch> MakePatch(const py::array& patch, const Pair& corner, const Pair& scale,
                                        const InterpolationOptions& options, bool portable) {
  if (patch.ndim() != 3) throw py::value_error("expected a patch (height, width, channels)");
  const std::array<int64_t, 3> shape = {patch.shape(0), patch.shape(1), patch.shape(2)};
  return std::make_unique<SampledPatch>(patch.data(), StorageOf(patch), shape, corner, scale, options,
                                        portable ? PortableKernels() : CurrentKernels());
}

std::unique_ptr<FeaturemetricEdgeCost> MakeEdgeCost(const py::array& patch_i, const py::array& patch_j,
                                                    const Pair& corner_i, const Pair& corner_j,
                                                    const Pair& scale_i, const Pair& scale_j,
                                                    const Nodes& nodes, const std::string& mode,
                                                    bool l2_normalize, bool ncc_normalize, bool portable) {
  const InterpolationOptions options = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  auto i = MakePatch(patch_i, corner_i, scale_i, options, portable),
       j = MakePatch(patch_j, corner_j, scale_j, options, portable);
  if (i->dimension() != j->dimension())
    throw py::value_error("the patches have different numbers of channels");
  return std::make_unique<FeaturemetricEdgeCost>(std::move(i), std::move(j));
}

std::unique_ptr<FeaturemetricReferenceCost> MakeReferenceCost(
    const py::array& patch, const std::vector<double>& reference, const Pair& corner, const Pair& scale,
    const Nodes& nodes, const std::string& mode, bool l2_normalize, bool ncc_normalize, bool portable) {
  const InterpolationOptions options = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  auto sampled = MakePatch(patch, corner, scale, options, portable);
  if (sampled->dimension() != static_cast<int64_t>(reference.size())) {
    throw py::value_error("the reference needs channels * nodes values");
  }
  return std::make_unique<FeaturemetricReferenceCost>(std::move(sampled), reference);
}

}  // namespace
}  // namespace pixcli

// `portable` takes the kernels without vector instructions, whatever the machine has: a second opinion on
// those. The costs borrow the arrays of their patches; keep_alive holds these as long as the cost.
PYBIND11_MODULE(_costs, m) {
  using namespace pixcli;
  m.doc() = "Cost functions of pixcli for pyceres.Problem.";
  py::module_::import("pyceres");
  // pyceres holds costs by smart_holder, and so must every class derived from them.
  py::class_<FeaturemetricEdgeCost, ceres::CostFunction, py::smart_holder>(
      m, "FeaturemetricEdgeCost", "f_i(x_i) - f_j(x_j), one row a channel and node; parameters [x_i, x_j].")
      .def(py::init(&MakeEdgeCost), "patch_i"_a.noconvert(), "patch_j"_a.noconvert(), "corner_i"_a,
           "corner_j"_a, "scale_i"_a = Pair{1, 1}, "scale_j"_a = Pair{1, 1}, py::kw_only(),
           "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
           "ncc_normalize"_a = false, "portable"_a = false, py::keep_alive<1, 2>(), py::keep_alive<1, 3>());
  py::class_<FeaturemetricReferenceCost, ceres::CostFunction, py::smart_holder>(
      m, "FeaturemetricReferenceCost", "f(x) - reference, one row a channel and node; parameters [x].")
      .def(py::init(&MakeReferenceCost), "patch"_a.noconvert(), "reference"_a, "corner"_a,
           "scale"_a = Pair{1, 1}, py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic",
           "l2_normalize"_a = true, "ncc_normalize"_a = false, "portable"_a = false, py::keep_alive<1, 2>());
}
